"""The verb reached: small windows exhausted, long and odd rows, edges; what is opened beside what is dealt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, ULP, Words, combine, compute, dealt, examples, kernels_named, looks_uniform, run, words_of

from secformer.mpc.dealer.kinds import CHUNK
from secformer.mpc.dealer.thresholds import Empty, Reached, segments_of
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.shares import Share


def expected(x: np.ndarray, thresholds: list[float]) -> list[np.ndarray]:
    return [(x.max(axis=-1, keepdims=True) >= c).astype(np.uint64) for c in thresholds]


def on_grid(rng: np.random.Generator, low: float, high: float, *shape: int, unit: float = 1.0) -> np.ndarray:
    """Multiples of the unit from low to high, both among them where they fit."""
    x = rng.integers(round(low / unit), round(high / unit) + 1, size=shape) * unit
    if x.size > 1:
        x.reshape(-1)[[0, -1]] = low, high
    return x


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_every_value_under_many_masks(name: str, bits: int) -> None:
    """Windows of a few bits: each value of the window, by itself and with each other value, under 64 masks each."""
    half = 1 << bits - 1
    values = np.arange(-half, half)
    pairs = np.stack(np.meshgrid(values, values, indexing="ij"), axis=-1).reshape(-1, 2)
    x = np.repeat(pairs, 64, axis=0)
    results, outcome = run(lambda s, x: s.reached(x, [0.0], low=-half, high=half - 1), Words(words_of(x), 0), raw=True,
                           kernels=kernels_named(name))
    np.testing.assert_array_equal(results[0].words, expected(x, [0.0])[0])
    assert outcome.plan.kinds[0] == Reached(x.size, bits, 2, 1, outcome.plan.kinds[0].chunk)


@examples(40)
@given(
    shape=st.sampled_from([(1,), (3,), (5, 1), (2, 3), (4, 7), (3, 1, 8), (2, 2, 15), (2, 16), (1, 127), (1, 128),
                           (2, 255), (1, 256), (2, 600), (0, 4), (2, 0, 3)]),
    count=st.integers(1, 9),
    seed=st.integers(0, 999),
    name=st.sampled_from(KERNELS),
    width=st.sampled_from([1, 7, 16, 48, 64]),
    trivial=st.booleans(),
)
def test_reached_is_exact_on_words(
    shape: tuple[int, ...], count: int, seed: int, name: str, width: int, trivial: bool
) -> None:
    rng, unit = np.random.default_rng(seed), 2.0**-2
    low, high = -20.0, 11.0
    x = on_grid(rng, low, high, *shape, unit=unit)
    thresholds = rng.choice([low, high, -1.0, *on_grid(rng, low, high, 9, unit=unit)], size=count).tolist()
    results, outcome = run(
        lambda s, x: s.reached(x, thresholds, low=low, high=high, width=width),
        Words(words_of(np.rint(x / unit)), 2), raw=True, seed=seed, kernels=kernels_named(name), trivial=trivial,
    )
    for got, bits in zip(results, expected(x, thresholds) if x.size else [np.zeros((*shape[:-1], 1))] * count,
                         strict=True):
        assert (got.frac, got.width) == (0, width)
        np.testing.assert_array_equal(got.words, bits)
    first, second = outcome.plan.kinds
    assert (first.count, second.count) == (x.size, x.size // shape[-1])
    assert first.width == second.window <= 8 and second.segments == -(-shape[-1] // 255)
    assert 2**second.window > -(-shape[-1] // second.segments)
    assert outcome.cost.rounds == outcome.plan.rounds == 4
    assert outcome.cost.bytes == outcome.plan.bytes


@pytest.mark.parametrize("columns", [1, 3, 4, 7, 8, 9])
def test_every_count_of_a_row(columns: int) -> None:
    """0 to T values reach the threshold: T itself, also where it is a power of two, must not look like none."""
    x = np.where(np.arange(columns) < np.arange(columns + 1)[:, None], 1.0, -1.0)[np.arange(40 * (columns + 1)) // 40]
    results, _ = run(lambda s, x: s.reached(x, [0.0, 1.0, -1.0], low=-1.0, high=1.0, precision=2), x, raw=True)
    # a threshold at a value itself: the value was coded exactly, but dropped bits may put it a unit below
    np.testing.assert_array_equal(results[0].words, expected(x, [0.0])[0])
    assert (results[1].words <= expected(x, [1.0])[0]).all()


@pytest.mark.parametrize(("columns", "thresholds", "segments"), [(255, 64, 1), (256, 2, 2), (511, 2, 3), (1020, 16, 4),
                                                                 (1021, 1, 1), (256, 33, 1)])
def test_long_rows_are_counted_in_segments(columns: int, thresholds: int, segments: int) -> None:
    """One value at either end of a segment, all values, none."""
    parts, length = segments_of(columns, thresholds)
    assert parts == segments and length * (parts - 1) < columns <= length * parts
    ends = sorted({0, columns - 1, *(p for s in range(1, parts) for p in (s * length - 1, s * length))})
    x = np.full((len(ends) + 2, columns), -1.0)
    x[range(len(ends)), ends], x[-1] = 3.0, 3.0
    cs = [float(c) for c in range(3, 3 - thresholds, -1)]
    results, outcome = run(lambda s, x: s.reached(x, cs, low=-1.0, high=3.0), Words(words_of(x), 0), raw=True)
    for got, bits in zip(results, expected(x, cs), strict=True):
        np.testing.assert_array_equal(got.words, bits)
    assert [(k.segments, k.window) for k in outcome.plan.kinds[1:]] == [(segments, length.bit_length())]


def test_all_below_and_all_above() -> None:
    x = on_grid(np.random.default_rng(0), -3.0, 3.0, 6, 10)
    below, above = ([x.max() + 1.0, 100.0], [-4.0, x.min(), -20.0])
    for thresholds, bit in ((below, 0), (above, 1)):
        results, _ = run(lambda s, x, c=thresholds: s.reached(x, c, low=-3.0, high=3.0), Words(words_of(x), 0),
                         raw=True)
        assert [np.unique(r.words).tolist() for r in results] == [[bit]] * len(thresholds)


@pytest.mark.parametrize("precision", [0, 1, 2, 3])
def test_dropped_bits_err_only_just_above_a_threshold(precision: int) -> None:
    rng, unit = np.random.default_rng(precision), 2.0**-precision
    thresholds = [0.0, 5.0, -3.0, 2.0 + 0.3 * unit]
    x = np.concatenate([rng.uniform(-8.0, 8.0, size=4000),
                        *(c + rng.uniform(-2, 2, size=1500) * unit for c in thresholds)])
    x = (np.rint(x / ULP) * ULP)[:, None]
    results, _ = run(lambda s, x: s.reached(x, thresholds, low=-8.0, high=8.0, precision=precision), x, raw=True)
    for got, c in zip(results, thresholds, strict=True):
        on = np.ceil(c / unit) * unit
        wrong = got.words != (x >= on).astype(np.uint64)
        assert not (got.words > (x >= c)).any()
        assert ((x >= on) & (x < on + unit))[wrong].all()


def test_pending_values_and_the_ends_of_their_interval() -> None:
    x = np.array([[-16.0 + ULP, 15.0 - ULP], [15.0 - ULP, -16.0]] * 30)

    def program(s: Any, x: Share) -> list[Share]:
        p = s.mul(x, s.public(1.0, shape=x.shape))
        return s.reached(p, [14.0, 15.0, -16.0], low=-16.0, high=15.0, precision=2)

    results, outcome = run(program, x, raw=True)
    assert [type(k).__name__ for k in outcome.plan.kinds] == ["Hadamard", "Reached", "Empty"]
    assert outcome.plan.kinds[1].window == 8
    assert [np.unique(r.words).tolist() for r in results] == [[1], [0], [1]]


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_chunk_borders(count: int) -> None:
    x = (np.linspace(-0.9, 0.9, count) // 2.0**-6 * 2.0**-6)[:, None]
    got = compute(lambda s, x: s.reached(x, [0.5], low=-1.0, high=1.0)[0], Words(words_of(x * 2.0**6), 6), raw=True)
    np.testing.assert_array_equal(got.words, x >= 0.5)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_that_share_a_word_of_bits(chunk: int) -> None:
    from secformer.mpc.simulate import World

    rng = np.random.default_rng(chunk)
    x = on_grid(rng, -5.0, 5.0, 9, 11)
    world = World(kernels=kernels_named(KERNELS[-1]))
    for session in (*world.parties, world.recorder):
        if hasattr(session, "party"):
            session.party.chunk = chunk
        else:
            session._chunk = chunk
    results, outcome = run(lambda s, x: s.reached(x, [4.0, 0.0], low=-5.0, high=5.0), Words(words_of(x), 0), raw=True,
                           world=world)
    assert outcome.plan.kinds[0].chunk == chunk
    for got, bits in zip(results, expected(x, [4.0, 0.0]), strict=True):
        np.testing.assert_array_equal(got.words, bits)


def test_sixty_four_thresholds_fill_a_word() -> None:
    x = np.arange(-40, 40)[:, None]
    thresholds = [float(c) for c in range(-32, 32)]
    results, _ = run(lambda s, x: s.reached(x, thresholds, low=-40.0, high=39.0), Words(words_of(x), 0), raw=True)
    for got, bits in zip(results, expected(x, thresholds), strict=True):
        np.testing.assert_array_equal(got.words, bits)


def test_bits_count_into_a_maximum_in_other_formats() -> None:
    x = on_grid(np.random.default_rng(4), -7.0, 7.0, 5, 12, unit=0.5)
    for frac in (8, 12, 20):
        got = compute(lambda s, x: sum(s.reached(x, [c / 2.0 for c in range(-13, 15)], low=-7.0, high=7.0,
                                                 precision=3)[1:], s.public(0.0, (5, 1))) * 0.5,
                      x + 0.25, fixed=FixedPoint(frac, 62 - 2 * frac if frac > 15 else 20))
        assert np.abs(got - (x.max(axis=-1, keepdims=True) + 6.5)).max() <= 0.5


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("value", [-60, 0, 59])
def test_opened_bits_tell_nothing_beside_what_the_dealer_gave(rank: int, value: int) -> None:
    """One party's whole view of a value: the opened word, its shares (made of corrections at party 1) of table and
    bits, and the opened bits. Every pair of bits of them is uniform, whatever the value."""
    n, kind = 6000, Reached(6000, 8, 5, 2)
    sources = dealt([kind])
    own, whole = _drawn(sources, kind, rank)
    r = whole["mask"]
    u = (r + np.uint64(value % 256)) & np.uint64(255)
    view = [u & np.uint64(1), u >> np.uint64(7), own["equal0"].reshape(n, 16)[:, 3] & 1, own["bit0"] & np.uint64(1),
            own["bit1"] >> np.uint64(4) & np.uint64(1), own["mask"] & np.uint64(1)]
    for t, c in enumerate((0, 5)):
        low = (u - np.uint64(c)) & np.uint64(127)
        e = (low < (r & np.uint64(127))) ^ (_bits(whole[f"alpha{t}"], n) == 1)
        view += [e, e ^ (_bits(own[f"alpha{t}"], n) == 1)]
    for i, a in enumerate(view):
        for b in view[:i]:
            assert looks_uniform(a.astype(np.uint64) + 2 * b.astype(np.uint64), 2)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("value", [0, 1, 31])
def test_counts_tell_nothing_beside_what_the_dealer_gave(rank: int, value: int) -> None:
    n, kind = 6000, Empty(6000, 5, 16, 1)
    own, whole = _drawn(dealt([kind]), kind, rank)
    v = (whole["mask"] + np.uint64(value)) & np.uint64(31)
    d = (v == whole["mask"]) ^ (whole["alpha"] == 1)
    table = np.concatenate([own[name] for name in own if name.startswith("equal")]).reshape(n, 4)
    view = [v & np.uint64(1), v >> np.uint64(4), d, d ^ (own["alpha"] == 1), table[:, 0] & 1, table[:, 3] >> 7,
            own["table0"][::2] & np.uint64(1), own["table0"][1::2] >> np.uint64(15) & np.uint64(1),
            own["mask"] & np.uint64(1)]
    for i, a in enumerate(view):
        for b in view[:i]:
            assert looks_uniform(a.astype(np.uint64) + 2 * b.astype(np.uint64), 2)


def _drawn(sources: Any, kind: Any, rank: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A party's shares of every field, and the fields."""
    materials = [source.take(kind) for source in sources]
    own, whole = {}, {}
    for field in kind.fields():
        shares = [m.draw(field.name) for m in materials]
        own[field.name], whole[field.name] = shares[rank], combine(field, *shares)
    return own, whole


def _bits(words: np.ndarray, count: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), bitorder="little")[:count]
