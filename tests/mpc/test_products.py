"""How operands enter products: lifted by their opening, without their low bits, or as they are; exhaustively for small
windows, against integers; what is opened, and what each party sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import (
    KERNELS,
    SEEDS,
    ULP,
    Raw,
    Sent,
    Sink,
    Words,
    chi_square_fits,
    compute,
    examples,
    integers,
    kernels_named,
    looks_uniform,
    reduced,
    run,
    tapped,
    wire_words,
    words_of,
)

from secformer.mpc.dealer.correlations import Material
from secformer.mpc.dealer.kinds import Coin
from secformer.mpc.dealer.products import Hadamard, MatMul
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.source import Source
from secformer.mpc.errors import RangeError
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import Masked
from secformer.mpc.meter import Meter
from secformer.mpc.ops import linear
from secformer.mpc.scales import Operand
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

# ---- the gate on words that are given, all of them ----------------------------------------------------------------


class Given(Material):
    """A party's shares of fields, as they were made."""

    def __init__(self, fields: dict[str, np.ndarray]):
        self.fields = dict(fields)

    def draw(self, name: str) -> np.ndarray:
        return self.fields.pop(name)


class Chosen:
    """An operand whose value, shares and masks are chosen: integers of one shape, all of them signed or below 2^64."""

    def __init__(self, x: np.ndarray, share: np.ndarray, r: np.ndarray, other: np.ndarray, window: int, junk: int = 0):
        self.x, self.window, self.masks = x, window, (r.astype(np.uint64), other.astype(np.uint64))
        high = np.uint64(junk << window) if window else np.uint64(0)  # what stands above a window is nobody's
        self.shares = (share.astype(np.uint64) + high, x.astype(np.int64).view(np.uint64) - share.astype(np.uint64))

    def operand(self, rank: int) -> Operand:
        return Operand(Share(None, self.shares[rank], 0, self.window or 64, 1), self.window)  # type: ignore[arg-type]


def multiplied(pairs: Sequence[tuple[Chosen, Chosen]], widths: Sequence[int], kernels: Kernels) -> list[np.ndarray]:
    """What both parties hold together modulo each width, by the real gate and the dealer's own terms."""
    rng = np.random.default_rng(1)
    operands = list({id(v): v for pair in pairs for v in pair}.values())
    entering = [{id(v): v.operand(rank) for v in operands} for rank in (0, 1)]
    given = [[(mine[id(x)], mine[id(y)]) for x, y in pairs] for mine in entering]
    kind, _ = linear.bilinear(Hadamard, given[0], list(widths))
    fields: list[dict[str, np.ndarray]] = [{}, {}]
    sums = {}
    for i, v in enumerate(operands):
        for rank in (0, 1):
            fields[rank][f"mask{i}"] = v.masks[rank].reshape(-1)
        total = v.masks[0] + v.masks[1]
        sums[f"mask{i}"] = (total if v.window else reduced(total, kind.bits[i])).reshape(-1)
    for field, value in zip(kind.derived(), kind.correlate(sums, kernels, lambda i: None), strict=True):
        mine = rng.integers(0, 2**64, size=value.size, dtype=np.uint64)
        fields[0][field.name], fields[1][field.name] = mine, reduced(value - mine, field.bits)
    masked: list[list[Any]] = [[], []]
    results = []
    steps = []
    for rank in (0, 1):
        party: Any = SimpleNamespace(rank=rank, kernels=kernels, take=lambda kind, rank=rank: Given(fields[rank]),
                                     see=lambda *_: None)
        steps.append(linear.hadamard(party, given[rank], list(widths)))
        _, items = next(steps[rank])
        masked[rank] = [m.words if isinstance(m, Masked) else m for m, _ in items]
    opened = [reduced(a + b, bits) for a, b, (_, bits) in zip(*masked, items, strict=True)]
    for each in steps:
        with pytest.raises(StopIteration) as end:
            each.send(opened)
        results.append(end.value.value)
    return [reduced(a + b, width) for a, b, width in zip(*results, widths, strict=True)]


def every(window: int, shares: bool) -> list[np.ndarray]:
    """Every x that a window holds with both of its ends, every mask of both parties and, on request, every share."""
    bound, ring = 1 << (window - 2), np.arange(1 << window)
    axes = [np.arange(-bound, bound + 1), ring if shares else np.array([0]), ring, ring]
    x, share, r, other = (v.reshape(-1) for v in np.meshgrid(*axes, indexing="ij"))
    return [x, share if shares else np.random.default_rng(2).integers(0, 2**63, size=x.size), r, other]


def products(x: np.ndarray, y: np.ndarray, width: int) -> np.ndarray:
    return reduced((x * y).astype(np.int64).view(np.uint64), width)


@pytest.mark.parametrize("window", [2, 3, 4])
def test_every_square_of_a_small_window(kernels: Kernels, window: int) -> None:
    """All values, shares and masks; in products that are wider than the window, just as wide, and narrower."""
    v = Chosen(*every(window, shares=True), window)
    for width in (64, 48, 2 * window, window + 1, window, window - 1):
        (got,) = multiplied([(v, v)], [width], kernels)
        np.testing.assert_array_equal(got, products(v.x, v.x, width))


@pytest.mark.parametrize("windows", [(2, 2), (3, 2), (2, 3), (3, 3)])
def test_every_pair_of_lifted_operands(kernels: Kernels, windows: tuple[int, int]) -> None:
    """All values and masks of both, and all shares of one, broadcast against each other."""
    x = Chosen(*(v[:, None] for v in every(windows[0], shares=windows[0] < 3)), windows[0])
    y = Chosen(*(v[None, :] for v in every(windows[1], shares=windows[1] < 3)), windows[1], junk=3)
    for widths in ((64, 8), (sum(windows) + 1, sum(windows)), (max(windows) + 1, 1)):
        a, b = multiplied([(x, y), (y, x)], widths, kernels)
        np.testing.assert_array_equal(a, products(x.x, y.x, widths[0]))
        np.testing.assert_array_equal(b, products(x.x, y.x, widths[1]))


@pytest.mark.parametrize("lifted_first", [True, False])
def test_a_lifted_operand_times_one_that_is_not(kernels: Kernels, lifted_first: bool) -> None:
    rng = np.random.default_rng(3)
    x = Chosen(*(v[:, None] for v in every(4, shares=False)), 4)
    y = Chosen(rng.integers(-(2**40), 2**40, size=50),
               *(rng.integers(0, 2**48, size=50) for _ in range(3)), 0)
    for width in (48, 40, 5, 4):
        (got,) = multiplied([(x, y) if lifted_first else (y, x)], [width], kernels)
        np.testing.assert_array_equal(got, products(x.x, y.x, width))


def test_an_operand_of_several_products_is_opened_once_for_all(kernels: Kernels) -> None:
    """Squares, pairs of lifted ones, and one that is not, all of one opening each; every product in its own width."""
    rng = np.random.default_rng(4)
    x, y = Chosen(*every(3, shares=True), 3), Chosen(*(rng.permutation(v) for v in every(3, shares=True)), 3)
    n = x.x.size
    z = Chosen(rng.integers(-99, 99, size=n), *(rng.integers(0, 2**48, size=n) for _ in range(3)), 0)
    # y's value must be y's: shares and masks were permuted apart from it
    pairs = [(x, y), (x, x), (y, z), (z, z), (y, y), (z, x)]
    widths = [48, 16, 40, 33, 5, 2]
    for got, (a, b), width in zip(multiplied(pairs, widths, kernels), pairs, widths, strict=True):
        np.testing.assert_array_equal(got, products(a.x, b.x, width))


# ---- by the verbs ---------------------------------------------------------------------------------------------------


def narrow(s: Any, x: Share, width: int = 32, magnitude: int = 14) -> Share:
    """The words of x, said to be right modulo 2^width only."""
    return Share(s, x.data, x.frac, width, magnitude)


def hadamards(outcome: Any) -> list[Hadamard]:
    return [k for k in outcome.plan.kinds if isinstance(k, Hadamard)]


@examples(40)
@given(frac=st.integers(17, 34), seed=st.integers(0, 999), matmul=st.booleans(), name=st.sampled_from(KERNELS))
def test_low_bits_that_are_dropped_cost_less_than_a_unit(frac: int, seed: int, matmul: bool, name: str) -> None:
    """An operand that is wide enough is rounded down or up to a multiple of its unit, and stays where it is one."""
    rng, shift = np.random.default_rng(seed), frac - 16
    bound = 1 << (frac + 5)
    z = [0, 1, -1, bound - 1, 1 - bound, *(int(v) for v in rng.integers(1 - bound, bound, size=40))]
    z[10:20] = [v >> shift << shift for v in z[10:20]]

    def program(s: Any, x: Share, one: Share) -> Share:
        x = Share(s, x.data, x.frac, x.width, 22)  # so large that lifting it would open more
        return s.matmul(x, one, magnitude=6) if matmul else s.mul(x, one, magnitude=6)

    (got,), outcome = run(program, Words(words_of(z)[:, None], frac), np.ones((1, 1)), raw=True, seed=seed,
                          kernels=kernels_named(name))
    (kind,) = outcome.plan.kinds
    assert isinstance(kind, MatMul if matmul else Hadamard) and not getattr(kind, "lifts", ())
    assert (set(kind.bits), got.width, outcome.cost.rounds) == ({40}, 40, 1)
    for value, word in zip(z, integers(got.words[:, 0], 40), strict=True):
        assert word in {value >> shift << 16, -(-value >> shift) << 16}


def test_shares_decide_which_way_low_bits_are_rounded(kernels: Kernels) -> None:
    """Party 0 rounds down and party 1 up. Where their low bits carry, that makes up for the carry; else it adds one."""
    n, one = 400, np.ones((1, 1))
    for value in (0x1234_5678, -0x0000_8001, 0x4000):
        given = Words(words_of([value] * n)[:, None], 32)
        got: Raw = compute(lambda s, x, y: s.matmul(x, y), given, one, raw=True, kernels=kernels)
        assert {word >> 16 for word in integers(got.words[:, 0], 48)} == {value >> 16, (value >> 16) + 1}
        got = compute(lambda s, x, y: s.matmul(x, y), given, one, raw=True, kernels=kernels, trivial=True)
        assert {word >> 16 for word in integers(got.words[:, 0], 48)} == {value >> 16}


@pytest.mark.parametrize("trivial", [False, True])
def test_lifted_operands_give_what_settled_ones_give(kernels: Kernels, trivial: bool) -> None:
    """Word by word: the low bits of the same shares are dropped, and everything after is exact."""
    rng = np.random.default_rng(5)
    x, y = (Words(words_of([int(v * 2**32) for v in rng.uniform(-90, 90, size=60)]), 32, 48) for _ in range(2))

    def program(early: bool) -> Any:
        def body(s: Any, x: Share, y: Share) -> list[Share]:
            x, y = s.settle(x, y) if early else (x, y)
            return s.mul_many([(x, y), (x, x), (y, s.public(1.0, y.shape))], magnitude=22)
        return body

    (fused, one), (apart, two) = (run(program(early), x, y, raw=True, kernels=kernels, trivial=trivial)
                                  for early in (False, True))
    for a, b in zip(fused, apart, strict=True):
        assert (a.frac, a.width) == (b.frac, b.width) == (32, 56)
        np.testing.assert_array_equal(a.words, b.words)
    assert (one.cost.rounds, two.cost.rounds) == (1, 2)
    assert hadamards(one)[0].lifts == (32, 32, 0)
    assert one.cost.bytes == 2 * (4 + 4 + 7) * 60
    assert two.cost.bytes == 2 * (4 + 4 + 3 * 7) * 60


@pytest.mark.parametrize("trivial", [False, True])
def test_operands_that_are_kept_come_back_truncated_for_nothing(kernels: Kernels, trivial: bool) -> None:
    """Word by word what `settle` makes of the same shares, as wide as the widest product; the plan is the same."""
    rng = np.random.default_rng(8)
    x, y = (Words(words_of([int(v * 2**32) for v in rng.uniform(-90, 90, size=60)]), 32, 48) for _ in range(2))
    z = np.rint(rng.uniform(-90, 90, size=60) / ULP) * ULP

    def program(s: Any, x: Share, y: Share, z: Share) -> list[Share]:
        kept = (y, z, x)
        return s.mul_many([(x, y), (x, x), (y, z)], magnitude=(22, 14, 10), settled=kept)[3:]

    def apart(s: Any, x: Share, y: Share, z: Share) -> list[Share]:
        return [*s.settle(y), z, *s.settle(x)]

    found, one = run(program, x, y, z, raw=True, kernels=kernels, trivial=trivial)
    expected, _ = run(apart, x, y, z, raw=True, kernels=kernels, trivial=trivial)
    assert [v.frac for v in found] == [16, 16, 16]
    assert [v.width for v in found] == [56, 48, 56]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.words, reduced(b.words, a.width))
    _, without = run(lambda s, *v: s.mul_many([(v[0], v[1]), (v[0], v[0]), (v[1], v[2])], magnitude=(22, 14, 10)),
                     x, y, z, raw=True, kernels=kernels, trivial=trivial)
    assert one.plan.kinds == without.plan.kinds and one.cost.bytes == without.cost.bytes


def test_operands_that_are_kept_are_fresh_shares() -> None:
    x = np.zeros(6000)
    for program in (lambda s, x: s.mul_many([(x, x)], settled=(x,))[1:],
                    lambda s, x: (lambda y: s.mul_many([(y, x)], settled=(y,))[1:])(narrow(s, x))):
        world = World(kernels=kernels_named("numpy"), unsafe_seeds=SEEDS)
        _, outcome = run(program, x, world=world, raw=True, trivial=True)
        for ((words, _, width),) in outcome.results:
            assert looks_uniform(reduced(words, width), width)


def test_whole_products_need_no_truncation_before_a_matrix_product() -> None:
    x = np.array([[1.5, -3.25], [50.0, 0.0]])
    for whole, kinds, sent in ((True, ["Hadamard", "MatMul"], 8 + 2 * 6),
                               (False, ["Hadamard", "Lift", "MatMul"], 6 + 4 + 2 * 6)):
        (got,), outcome = run(lambda s, x, w=whole: s.matmul(s.square(x, whole=w), x), x, raw=True)
        assert [type(k).__name__ for k in outcome.plan.kinds] == kinds
        assert outcome.plan.bytes == outcome.cost.bytes == 2 * 4 * sent
        np.testing.assert_array_equal(got.value, x**2 @ x)


def test_the_twin_the_recorder_and_the_parties_agree(kernels: Kernels) -> None:
    rng = np.random.default_rng(6)
    x, y = rng.uniform(-3, 3, size=(4, 5)), rng.uniform(-3, 3, size=(4, 1))

    def program(s: Any, x: Share, y: Share) -> list[Share]:
        p, q = s.mul_many([(x, y), (y, y)], magnitude=6)
        a, b, c = s.mul_many([(p, q), (p, p), (q, x)], magnitude=10)
        return [a, s.square(b, magnitude=14), s.mul(c, narrow(s, y, 24, 4), magnitude=8)]

    twin, recorder = PlainSession(), PlanRecorder()
    plain = program(twin, twin.accept(x), twin.accept(y))
    shapes = program(recorder, recorder.accept(ghost(x.shape)), recorder.accept(ghost(y.shape)))
    results, outcome = run(program, x, y, raw=True, kernels=kernels)
    assert sum(any(k.lifts) for k in hadamards(outcome)) == 3
    for a, b, c in zip(plain, shapes, results, strict=True):
        assert (a.frac, a.width) == (b.frac, b.width) == (c.frac, c.width)
        assert a.magnitude == b.magnitude
        assert a.shape == b.shape == c.words.shape
        assert np.abs(a.data - c.value).max() <= (2.0**-4 if a is plain[1] else 200 * ULP)
    assert (outcome.plan.rounds, outcome.plan.bytes) == (outcome.cost.rounds, outcome.cost.bytes)
    assert outcome.plan.dealer_bytes == outcome.cost.dealer_bytes


@pytest.mark.parametrize("bad", [64.0, -64.0, 1e6, np.nan])
def test_the_strict_twin_refuses_what_a_lifted_operand_cannot_hold(bad: float) -> None:
    def program(s: Any, x: Share) -> Any:
        with s.scope("layer 1"), s.scope("softmax"):
            return s.mul(narrow(s, x, 24, 6), x)

    twin = PlainSession()
    program(twin, twin.accept(np.array([63.99, -63.99])))
    with pytest.raises(RangeError, match=r"layer 1/softmax: a product's lifted operand holds \|v\| < 2\^6"):
        program(twin, twin.accept(np.array([1.0, bad])))
    lenient = PlainSession(strict=False)
    program(lenient, lenient.accept(np.array([bad])))


def test_operands_that_are_not_lifted_may_be_as_large_as_the_product_allows() -> None:
    x, y = np.array([50_000.0, -32_000.0]), np.array([0.25, 0.5])
    twin = PlainSession()
    twin.mul(twin.accept(x), twin.accept(y))
    np.testing.assert_array_equal(compute(lambda s, x, y: s.mul(x, y), x, y), x * y)


def test_an_operand_whose_width_does_not_hold_its_promise_is_refused() -> None:
    for matmul in (False, True):
        with pytest.raises(RangeError, match="takes 48 bits to truncate; it has 40"):
            compute(lambda s, x, m=matmul: s.matmul(x, x) if m else s.mul(x, x),
                    Words(np.zeros((2, 2), dtype=np.uint64), 32, 40))


# ---- what a party sees ----------------------------------------------------------------------------------------------

N = 40_000


@pytest.mark.parametrize("trivial", [False, True], ids=["shared", "trivially shared"])
@pytest.mark.parametrize("value", [0, 3, -4])
def test_a_partys_whole_view_of_a_lifted_pair_is_uniform(value: int, trivial: bool) -> None:
    """x and y are fixed. The few bits of both openings, of the party's own masks and of every share that it gets are
    uniform together: no combination of them says anything."""
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    world = World(kernels=kernels_named(KERNELS[-1]), unsafe_seeds=SEEDS, connect=tapped(logs))
    words = Words(words_of([value] * N), 0, 64)

    def program(s: Any, x: Share, y: Share) -> Share:
        return s.mul(Share(s, x.data, 0, 4, 2), Share(s, y.data, 0, 5, 3), magnitude=6)

    (got,), outcome = run(program, words, words, world=world, raw=True, trivial=trivial)
    assert (got.width, set(got.words.tolist())) == (40, {value * value})
    (kind,) = outcome.plan.kinds
    assert isinstance(kind, Hadamard) and [name for name, _ in kind.terms(0)] == ["product", "left", "right", "both"]
    sent = [wire_words(log[0][1], 8).reshape(2, N) for log in logs]
    opened = sent[0] + sent[1]
    u, v = reduced(opened[0], 4), reduced(opened[1], 5)
    corrections = Sink()
    Dealer(SEEDS, kernels_named("numpy")).deal(outcome.plan, 0, corrections)
    gets = {tag.verb: wire_words(payload, tag.bits) for tag, payload in corrections.fields(outcome.plan.kinds)}
    for rank in (0, 1):
        material = Source(SEEDS[rank], 0, outcome.plan, None, kernels_named("numpy"), Meter()).take(kind)
        own = {name: material.draw(name) for name in ("mask0", "mask1")}
        derived = {f.name: gets[f.name] if rank else material.draw(f.name) for f in kind.derived()}
        for i in (0, 1):  # first what counts where the top bit of an opening is 0, then where it is 1
            derived[f"low{i}"], derived[f"high{i}"] = derived.pop(f"wraps{i}").reshape(2, N)
        for name, share in [*own.items(), *derived.items()]:
            assert chi_square_fits(together([u, v, reduced(share, 3)], (4, 5, 3)), 1 << 12), (rank, name)
        # openings of both, their masks' top bits, and the terms that those bits are in
        parts = [u >> np.uint64(2), v >> np.uint64(3), own["mask0"] >> np.uint64(3), own["mask1"] >> np.uint64(4),
                 *(reduced(derived[name], 1) for name in ("low0", "high1", "left0", "right0", "both0", "product0"))]
        bits = (2, 2, 1, 1, 1, 1, 1, 1, 1, 1)
        assert chi_square_fits(together(parts, bits), 1 << sum(bits)), rank


def together(parts: Sequence[np.ndarray], bits: Sequence[int]) -> np.ndarray:
    """Words of a few bits each, one behind the other."""
    total, shift = np.zeros_like(parts[0]), 0
    for part, size in zip(parts, bits, strict=True):
        assert int(part.max()) < 1 << size
        total, shift = total | (part << np.uint64(shift)), shift + size
    return total


@pytest.mark.parametrize("value", [0.0, 31.0, ULP - 31.0])
def test_messages_of_operands_of_several_widths_are_uniform(value: float) -> None:
    """A lifted operand and one that is not, in one message, and nothing above their widths travels."""
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    world = World(kernels=kernels_named(KERNELS[0]), unsafe_seeds=SEEDS, connect=tapped(logs))
    run(lambda s, x: s.mul(narrow(s, x, 31, 10), x), np.full(6000, value), world=world, raw=True, trivial=True)
    first, second = ((log[0][0], log[0][1]) for log in logs)
    assert first[0].bits == 48 and first[1].size == 6000 * (4 + 6)
    for payload in (first[1], second[1]):
        lifted, plain = wire_words(payload[: 4 * 6000], 31), wire_words(payload[4 * 6000 :], 48)
        assert looks_uniform(lifted, 31) and looks_uniform(plain, 48)
    assert looks_uniform(reduced(sum(wire_words(p[: 4 * 6000], 31) for _, p in (first, second)), 31), 31)


# ---- guards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifted", [True, False])
def test_guards_ride_on_the_openings_of_products(lifted: bool) -> None:
    """No Lift and no Witness: tables come with the product itself, for the operand that is checked and no other."""
    def program(s: Any, x: Share) -> Share:
        with s.guarding({6: np.arange(6)}, 6):
            return s.mul(s.checked((x * 0.5).promise(5) if lifted else x, -9.0, 9.0, "input"), x)

    _, outcome = run(program, np.ones((6, 3)), raw=True)
    coin, kind = outcome.plan.kinds
    assert isinstance(coin, Coin) and isinstance(kind, Hadamard)
    assert [bool(g) for g in kind.guards] == [True, False]
    assert kind.lifts == ((24, 0) if lifted else ())
    assert outcome.plan.bytes == outcome.cost.bytes == 2 * (32 + 18 * ((3 if lifted else 6) + 6))
    assert outcome.plan.dealer_bytes == outcome.cost.dealer_bytes
