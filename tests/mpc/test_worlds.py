"""Whole programs in every world: channels, kernels, formats, seeds; costs and backends as values."""

from __future__ import annotations

import importlib.util
import json
import threading
from typing import Any

import numpy as np
import pytest
from mpc_lab import KERNELS, SEEDS, Sent, Words, fix_private, kernels_named, quick_local_pair, run, tapped

from secformer.mpc.backend import Backend, choose_backend
from secformer.mpc.errors import BackendUnavailable, ProtocolError, SettingsError
from secformer.mpc.fixed import decode, encode
from secformer.mpc.functions import Series
from secformer.mpc.kernels import Kernels
from secformer.mpc.meter import COUNTERS, Cost, Meter
from secformer.mpc.net.channel import Channel, local_pair
from secformer.mpc.party import Party
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.secure import SecureSession
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World, _Run

F = Series(5, (0.5, 1.0, -0.25), (0.0, 0.5, 0.125), linear=0.5)

EVEN = Series(5, (0.5, 1.0, -0.25), (0.0, 0.5, 0.125))


def layer(s: Any, x: Share, w: Share) -> list[Share]:
    """A small network: products with a weight, a series, a maximum, comparisons; truncations run by themselves."""
    kept = s.open_weight(w.data)
    h = s.matmul(x, kept) + 0.5
    g = s.series(h, [F])[0]
    m = s.maximum(h, 1, bound=16.0, precision=4)
    e = s.series(h - m, [EVEN])[0]
    return [s.mul(g, e), s.relu(h, bound=16.0), s.less(h, [0.0, 1.0], bound=16.0)[1], s.square(g) * 0.3]


def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.uniform(-2, 2, size=(5, 4)), rng.uniform(-1, 1, size=(4, 6))


def test_a_program_gives_the_twins_answer_in_every_world(kernels: Kernels, pair: Any) -> None:
    x, w = inputs()
    twin = PlainSession()
    expected = [y.data for y in layer(twin, twin.accept(x), twin.accept(w))]
    results, outcome = run(layer, x, w, kernels=kernels, connect=pair)
    for got, want in (list(zip(results, expected, strict=True))[i] for i in (1, 3)):
        assert np.abs(got - want).max() < 1e-3
    h = x @ w + 0.5
    clear = np.abs(h - 1.0) > 1e-3
    np.testing.assert_array_equal(results[2][clear], (h < 1.0)[clear])
    assert outcome.plan.bytes == outcome.cost.bytes + outcome.cost.offline_bytes


def transcript(
    kernels: Kernels, pair: Any, seeds: tuple[bytes, bytes], private: bytes
) -> tuple[list[bytes], list[bytes]]:
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    world = fix_private(World(kernels=kernels, unsafe_seeds=seeds, connect=tapped(logs, pair)), private)

    def program(s: Any, mine: Any) -> Any:
        a = s.share(mine, 0, shape=(5, 4))
        b = s.share(mine, 1, shape=(5, 4))
        out = [s.mul(a, b), s.relu(a, bound=8.0), s.series(b, [F])[0]]
        return [s.reveal(y, CLIENT) for y in out]

    x, _ = inputs()
    outcome = world.run(program, x, x)
    shares = [words.tobytes() for mine in outcome.results for words in mine]
    return [p.tobytes() for log in logs for _, p in log], shares


def test_seeds_determine_every_byte_whatever_channel_and_kernels(kernels: Kernels, pair: Any) -> None:
    reference = transcript(kernels_named("numpy"), quick_local_pair, SEEDS, SEEDS[0])
    assert transcript(kernels, pair, SEEDS, SEEDS[0]) == reference


def test_other_seeds_change_every_byte() -> None:
    k = kernels_named("numpy")
    reference = transcript(k, quick_local_pair, SEEDS, SEEDS[0])
    other = transcript(k, quick_local_pair, (SEEDS[1], SEEDS[0]), SEEDS[0])
    private = transcript(k, quick_local_pair, SEEDS, SEEDS[1])
    assert not set(reference[1]) & set(other[1])
    assert sum(a == b for a, b in zip(reference[0], other[0], strict=True)) == 2  # the two messages of `share` alone
    assert not any(a == b for a, b in zip(reference[0][:1], private[0][:1], strict=True))


def test_worlds_take_fresh_seeds() -> None:
    a, b = World(), World()
    assert a._seeds[0] != a._seeds[1]
    assert len({*a._seeds, *b._seeds}) == 4
    parties = [Party(0, a.fixed, a.kernels) for _ in range(2)]
    assert not np.array_equal(parties[0].private.words(4), parties[1].private.words(4))


def test_numpy_and_numba_parties_meet() -> None:
    """The two kernel sets are one protocol: a party with either talks to a party with the other."""
    if len(KERNELS) < 2:
        pytest.skip("numba is not installed")
    x, w = inputs()
    world = World(kernels=kernels_named("numba"))
    other = Party(1, world.fixed, kernels_named("numpy"), chunk=world.kernels.chunk)
    world.parties = (world.parties[0], SecureSession(other))
    results, _ = run(layer, x, w, world=world)
    same, _ = run(layer, x, w, kernels=kernels_named("numpy"))
    for a, b in zip(results[1:], same[1:], strict=True):
        assert np.abs(a - b).max() < 1e-3


def test_many_runs_in_one_world_and_two_worlds_at_once() -> None:
    a, b = World(), World()
    for i in range(5):
        for world in (a, b):
            got, _ = run(lambda s, x: s.square(x), np.array([float(i)]), world=world)
            assert abs(got[0][0] - i * i) <= 2.0**-16


def test_a_thousand_steps() -> None:
    def program(s: Any, x: Share) -> Share:
        for _ in range(300):
            x = s.mul(x, s.public(1.0, shape=x.shape))
        return x

    (got,), outcome = run(program, Words(encode(np.array([1.5, -2.0]), 16), 16))
    assert np.abs(got - [1.5, -2.0]).max() <= 300 * 2.0**-16
    assert outcome.cost.rounds == 301  # and the last truncation


# ---- costs as values ------------------------------------------------------------------------------------------------


def test_costs_add_and_merge() -> None:
    a, b = Cost("x", 1.0, 0.5, 10, 1, 3, 1, 7), Cost("x", 2.0, 0.25, 20, 2, 4, 2, 0)
    a.child("c").bytes = 10
    b.child("d").rounds = 4
    total = a + b
    assert [getattr(total, k) for k in COUNTERS] == [3.0, 0.75, 30, 3, 7, 3, 7]
    both = a.merged(b, parallel=True)
    assert [getattr(both, k) for k in COUNTERS] == [2.0, 0.5, 30, 3, 4, 2, 7]
    assert set(both.children) == {"c", "d"}
    assert a.bytes == 10  # operands stay


def test_costs_print_and_export() -> None:
    cost = Cost("total", 1.25, 0.5, 2_000_000, 0, 3)
    cost.child("gelu").child("series").rounds = 3
    text = str(cost)
    assert "gelu" in text
    assert "    series" in text
    assert "2.000" in text
    back = json.loads(json.dumps(cost.as_dict()))
    assert back["children"][0]["children"][0]["rounds"] == 3


def test_a_network_is_predicted_from_rounds_and_bytes() -> None:
    cost = Cost("total", seconds=1.0, rounds=100, bytes=2 * 10**6)
    assert cost.predict(latency=0.01, bandwidth=8e6) == pytest.approx(1.0 + 1.0 + 1.0)


def test_kinds_of_scopes_are_summed_by_name() -> None:
    meter = Meter()
    for i in range(2):
        with meter.scope(f"layer {i}"), meter.scope("gelu"):
            meter.sent(5)
            meter.round()
        with meter.scope(f"layer {i}"):
            meter.dealt(3)
    kinds = meter.cost.by_kind()
    assert (kinds["gelu"].bytes, kinds["gelu"].rounds) == (10, 2)
    assert sum(kind.dealer_bytes for kind in kinds.values()) == meter.cost.dealer_bytes == 6
    assert meter.cost.bytes == 10


def test_offline_is_booked_apart_also_when_nested_and_when_it_fails() -> None:
    meter = Meter()
    with pytest.raises(ValueError, match="x"), meter.scope("a"), meter.offline():
        with meter.offline():
            meter.sent(1)
        meter.sent(2)
        meter.round()
        raise ValueError("x")
    meter.sent(4)
    assert (meter.cost.bytes, meter.cost.offline_bytes) == (4, 3)
    assert (meter.cost.rounds, meter.cost.offline_rounds) == (0, 1)
    assert meter.cost.children["a"].offline_bytes == 3
    assert meter.cost.offline_seconds == meter.cost.children["a"].offline_seconds > 0


# ---- backends -------------------------------------------------------------------------------------------------------


def test_backends_by_name() -> None:
    backend = choose_backend("numpy", threads=3)
    assert (backend.name, backend.xp, backend.threads, backend.on_gpu) == ("numpy", np, 3, False)
    assert choose_backend("numpy").threads >= 1
    assert choose_backend("auto").name in ("numpy", "cupy")
    with pytest.raises(SettingsError, match="auto, numpy, cupy; got 'torch'"):
        choose_backend("torch")
    with pytest.raises(SettingsError):
        World(backend="gpu")


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_a_missing_gpu_library_is_named() -> None:
    with pytest.raises(BackendUnavailable, match=r"CuPy is not installed.*backend='numpy'"):
        choose_backend("cupy")
    assert choose_backend("auto") == Backend("numpy", np, choose_backend("auto").threads)


def test_a_connection_that_fails_leaves_the_parties_in_step() -> None:
    refused = iter([True])

    def connect(a: str, b: str) -> tuple[Channel, Channel]:
        if next(refused, False):
            raise OSError("no route")
        return local_pair(a, b)

    world = World(connect=connect)
    eye = encode(np.eye(2), 16)

    def program(s: Any, words: np.ndarray) -> Any:
        return s.reveal(s.matmul(s.public(np.array([[1.0, 2.0]])), s.open_weight(words)), CLIENT)

    with pytest.raises(OSError, match="no route"):
        world.run(program, eye, np.zeros_like(eye))
    a, b = world.run(program, eye, np.zeros_like(eye)).results
    np.testing.assert_array_equal(decode(a + b, 16), [[1.0, 2.0]])


def test_no_run_starts_while_an_interrupted_one_is_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads hold the same sessions and would take the new run's masks."""
    monkeypatch.setattr("secformer.mpc.simulate.ENDING", 0.05)
    gate = threading.Event()

    def program(s: Any, words: np.ndarray) -> Any:
        x = s.accept(words)
        if getattr(s, "party", None) is not None and s.party.rank == 1:
            gate.wait(10)
        return s.reveal(s.square(x), CLIENT)

    def interrupted(self: _Run) -> dict[str, Any]:
        raise KeyboardInterrupt

    world, zeros = World(), np.zeros(3, dtype=np.uint64)
    with monkeypatch.context() as patch:
        patch.setattr(_Run, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.run(program, zeros, zeros)
    with pytest.raises(ProtocolError, match="still ending"):
        world.run(program, zeros, zeros)
    gate.set()
    monkeypatch.setattr("secformer.mpc.simulate.ENDING", 5.0)
    a, b = world.run(program, zeros, zeros).results
    assert not (a + b).any()
