"""A dealer that is not ours: trusted, in this process, made from the kinds' laws alone, without a plan."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from mpc_lab import F16, KERNELS, ULP, kernels_named

from secformer.mpc.dealer.correlations import Correlations, Material
from secformer.mpc.dealer.kinds import Field, Kind, WeightMask
from secformer.mpc.errors import Desync, InputError, ProtocolError, ReusedRandomness
from secformer.mpc.fixed import decode, encode
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import local_pair
from secformer.mpc.party import Party
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.secure import SecureSession
from secformer.mpc.shares import Share, Weight

F = Series(5, (0.5, 1.0, -0.25), (0.0, 0.5, 0.125), linear=0.5)
Program = Callable[[Session], Any]
Halves = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


class Given(Material):
    """Shares as they lie; each is given once."""

    def __init__(self, shares: dict[str, np.ndarray]):
        self._shares = shares

    def draw(self, name: str) -> np.ndarray:
        if name not in self._shares:
            raise ReusedRandomness(f"{name} was given already")
        return self._shares.pop(name)


class Trusted:
    """Makes a correlation when the first party asks for it, and keeps the other half."""

    def __init__(self, seed: int):
        self._rng, self._kernels = np.random.default_rng(seed), kernels_named("numpy")
        self._made: list[tuple[Kind, Halves]] = []
        self._standing: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def at(self, rank: int) -> Correlations:
        """One party's way to it."""
        return _At(self, rank)

    def give(self, number: int, kind: Kind, rank: int) -> Given:
        with self._lock:
            if number == len(self._made):
                self._made.append((kind, self._make(kind)))
            planned, halves = self._made[number]
        if planned != kind:
            raise Desync(f"the other party asked for {planned!r}, not {kind!r}")
        return Given(halves[rank])

    def _make(self, kind: Kind) -> Halves:
        fields = list(kind.fields())
        halves: Halves = ({}, {})
        for mask in (f for f in fields if not f.derived):
            for half in halves:
                half[mask.name] = self._uniform(mask)
        masks = {name: _combined(f, *(half[name] for half in halves))
                 for f in fields if not f.derived for name in [f.name]}
        if isinstance(kind, WeightMask):
            self._standing[kind.index] = masks["mask"].reshape(kind.shape)
        values = kind.correlate(masks, self._kernels, self._standing.__getitem__)
        for f, value in zip(kind.derived(), values, strict=True):
            halves[0][f.name] = mine = self._uniform(f)
            halves[1][f.name] = value ^ mine if f.xor else value - mine
        return halves

    def _uniform(self, field: Field) -> np.ndarray:
        kind = np.uint8 if field.xor and field.derived else np.uint64
        return self._rng.integers(0, 1 << field.bits, size=field.count, dtype=kind)


class _At:
    def __init__(self, dealer: Trusted, rank: int):
        self._dealer, self._rank, self._next = dealer, rank, 0

    def take(self, kind: Kind) -> Material:
        number, self._next = self._next, self._next + 1
        return self._dealer.give(number, kind, self._rank)


def _combined(field: Field, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if field.xor:
        return a ^ b
    return a + b if field.carries or field.bits == 64 else (a + b) & np.uint64((1 << field.bits) - 1)


def everything(s: Session, x: Share, w: Any) -> list[Share]:
    """Every kind of correlation, for x (n, 3) in (-3, 3) and a (3, 2) weight."""
    product = s.matmul(x, s.open_weight(w))
    curve, = s.series(s.mul(x, x[::-1]), [F])
    bit, = s.less(x, [0.5], bound=8.0)
    return [product, s.matmul(x, x.transpose()), curve, s.exponential(x - 3.0, Exponential(5, 0.25)),
            s.select(bit, x, -x), s.maximum(x, 1, bound=8.0), s.relu(x, bound=8.0), s.settle(x * 0.3)[0],
            *s.reached(x, [-3.5, 3.5], low=-4.0, high=4.0, precision=3)]


def both(dealer: Trusted, programs: tuple[Program, Program], kernels: str) -> list[Any]:
    """What two parties return that take their correlations from the dealer."""
    ends = local_pair("party 0", "party 1", deadline=20.0)

    def party(rank: int) -> Any:
        session = SecureSession(Party(rank, F16, kernels_named(kernels)))
        session.party.begin(ends[rank], dealer.at(rank), Meter())
        try:
            with np.errstate(over="ignore"):
                return programs[rank](session)
        except BaseException as error:
            ends[rank].abort(str(error))
            raise

    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(party, rank) for rank in (0, 1)]]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("n", [1, 70])
def test_parties_compute_with_a_dealer_of_another_s(kernels: str, n: int) -> None:
    rng = np.random.default_rng(n)
    x, w = np.rint(rng.uniform(-3, 3, (n, 3)) / ULP) * ULP, np.rint(rng.uniform(-1, 1, (3, 2)) / ULP) * ULP
    shares = [[(mask := rng.integers(0, 2**64, v.shape, dtype=np.uint64)), encode(v, 16) - mask] for v in (x, w)]

    def program(rank: int) -> Program:
        return lambda s: [s.reveal(y, CLIENT) for y in everything(s, s.accept(shares[0][rank]), shares[1][rank])]

    found = both(Trusted(n), (program(0), program(1)), kernels)
    twin = PlainSession()
    wanted = [twin.values(y) for y in everything(twin, twin.accept(x), w)]
    for a, b, value in zip(*found, wanted, strict=True):
        np.testing.assert_allclose(decode(a + b, 16), value, rtol=0, atol=6 * ULP)


def test_such_a_dealer_notices_parties_that_differ() -> None:
    zeros = np.zeros(3, dtype=np.uint64)
    with pytest.raises(ProtocolError, match="the other party asked for"):
        both(Trusted(0), (lambda s: s.square(s.accept(zeros)), lambda s: s.relu(s.accept(zeros), bound=2.0)), "numpy")


def test_its_material_burns() -> None:
    material = Trusted(0).at(0).take(WeightMask(0, (2, 3), 32))
    assert material.draw("mask").shape == (6,)
    with pytest.raises(ReusedRandomness):
        material.draw("mask")


def reopened(s: Session, words: np.ndarray, x: np.ndarray, fails: bool) -> tuple[list[np.ndarray], Any]:
    """A weight that is opened, taken back and opened again: what was opened each time, and x @ the second one."""
    opened = []

    def open_it() -> Weight:
        weight = s.open_weight(words)
        opened.append(weight.data.words[1])
        return weight

    if fails:
        with pytest.raises(InputError), s.taking_back():
            open_it()
            raise InputError("a run that fails")
    else:
        open_it()
        s.forget_weights()
    again = open_it()
    assert again.index == 0 and s.weights == 1
    return opened, s.reveal(s.matmul(s.accept(x), again), CLIENT)


@pytest.mark.parametrize("fails", [False, True], ids=["forgotten", "failed"])
def test_a_weight_that_is_opened_again_gets_a_fresh_mask(fails: bool) -> None:
    """The number is used again, its mask is not: two matrices under one mask give away their difference."""
    rng, dealer = np.random.default_rng(5), Trusted(5)
    x, w = np.rint(rng.uniform(-3, 3, (4, 3)) / ULP) * ULP, np.rint(rng.uniform(-1, 1, (3, 2)) / ULP) * ULP
    shares = [[(mask := rng.integers(0, 2**64, v.shape, dtype=np.uint64)), encode(v, 16) - mask] for v in (x, w)]

    def program(rank: int) -> Program:
        return lambda s: reopened(s, shares[1][rank], shares[0][rank], fails)

    (first, a), (second, b) = both(dealer, (program(0), program(1)), "numpy")
    asked, _ = zip(*dealer._made, strict=True)
    assert asked[:2] == (WeightMask(0, (3, 2), 64), WeightMask(0, (3, 2), 64))
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not (first[0] == first[1]).any(), "W - b and W - b': the masks differ in every word"
    np.testing.assert_array_equal(first[1] + dealer._standing[0], encode(w, 16), "later products use the new mask")
    np.testing.assert_allclose(decode(a + b, 16), x @ w, rtol=0, atol=6 * ULP)
