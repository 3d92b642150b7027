"""The check of unit rows: unit rows pass always, others fail with the stated probability, and it costs what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpc_lab import KERNELS, alone, kernels_named

from secformer.mpc.errors import SettingsError, ShapeError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.simulate import World
from secformer.mpc.unit_rows import SKETCHES

WORDS, SEGMENTS = 9, 3
SPANS = ((0, WORDS), (WORDS, WORDS + SEGMENTS))


def unit(word: int = 4, segment: int = 1) -> np.ndarray:
    row = np.zeros(WORDS + SEGMENTS, np.uint64)
    row[[word, WORDS + segment]] = 1
    return row


def changed(*changes: tuple[int, int]) -> np.ndarray:
    """The unit row with words added at places."""
    row = unit()
    for at, more in changes:
        row[at : at + 1] += np.uint64(more % 2**64)  # arrays wrap
    return row


def refused(rows: np.ndarray, kernels: str = KERNELS[-1], seed: int = 0) -> tuple[bool, Any]:
    """Whether both parties refuse the rows, and the outcome."""
    mask = np.random.default_rng(seed).integers(0, 2**64, rows.shape, dtype=np.uint64)

    def program(s: Any, words: np.ndarray) -> Any:
        return alone(s, s.unit_rows(s.accept(words, frac=0, operand=True), SPANS))

    outcome = World(kernels=kernels_named(kernels)).run(program, rows - mask, mask)
    first, second = (bool(words.any()) for words in outcome.results)
    assert first == second
    return first, outcome


def sketched(row: np.ndarray, span: tuple[int, int], seed: int = 0) -> tuple[list[int], int]:
    """z of each sketch and <1, x> - 1, in plaintext."""
    left, right = np.random.default_rng(seed).integers(0, 2**64, (2, SKETCHES, span[1] - span[0]), dtype=np.uint64)
    *found, total = kernels_named(KERNELS[-1]).sketches(row[None], span[0], left, right)[0]
    a, b, both = np.array(found).reshape(3, SKETCHES)
    return (a * b - both).tolist(), int(total) - 1


@pytest.mark.parametrize("kernels", KERNELS)
def test_every_unit_row_passes(kernels: str) -> None:
    rows = np.stack([unit(word, segment) for word in range(WORDS) for segment in range(SEGMENTS)])
    for seed in range(3):
        assert not refused(rows, kernels, seed)[0]


BAD = {
    "zeros": np.zeros(WORDS + SEGMENTS, np.uint64),
    "no word": changed((4, -1)),
    "no segment": changed((WORDS + 1, -1)),
    "two words": changed((0, 1)),
    "two segments": changed((WORDS, 1)),
    "minus one and two": changed((4, 1), (0, -1)),
    "minus one and two in segments": changed((WORDS + 1, 1), (WORDS, -1)),
    "three ones that sum to one": changed((0, 1), (1, -1)),
    "two": changed((4, 1)),
    "large": changed((0, 12345 << 30), (1, -(12345 << 30))),
    "the least that a table of 24 bits reads": changed((0, 1 << 23), (1, -(1 << 23))),
    "the least that a table of 32 bits reads": changed((0, 1 << 31), (1, -(1 << 31))),
    "a word's one in the segments": changed((4, -1), (WORDS, 1)),
    "noise": np.random.default_rng(1).integers(0, 2**64, WORDS + SEGMENTS, dtype=np.uint64),
}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", BAD)
def test_one_wrong_row_among_others_is_refused_by_both_parties(name: str, kernels: str) -> None:
    for at in (0, 2):
        rows = np.stack([unit()] * 3)
        rows[at] = BAD[name]
        assert refused(rows, kernels, seed=at)[0]


def test_the_sum_alone_and_the_sketches_alone_would_not_do() -> None:
    """Zeros pass every sketch, and -1 beside 2 passes the sum: each test is needed."""
    assert sketched(unit(), SPANS[0]) == ([0] * SKETCHES, 0)
    zeros, total = sketched(BAD["zeros"], SPANS[0])
    assert not any(zeros) and total
    zeros, total = sketched(BAD["minus one and two"], SPANS[0])
    assert all(zeros) and not total


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
def test_wrong_rows_pass_as_often_as_is_stated(bits: int) -> None:
    """The control: words too narrow. Where only the top `bits` of 64 are wrong, n of `ops/unit_rows`, one sketch lets
    a row pass with the probability of (n + 2) / 2^(n + 1) at most, and 2^-n at least. One vector twice is worse."""
    tries, rng = 20_000, np.random.default_rng(bits)
    more = 1 << (64 - bits)
    x = np.array([[1, more, -more % 2**64, 0]], dtype=np.uint64)
    left, right = (rng.integers(0, 2**64, (tries, 4), dtype=np.uint64) for _ in range(2))
    found = kernels_named(KERNELS[-1]).sketches(x, 0, left, right)[0]
    a, b, c = (found[i * tries : (i + 1) * tries] for i in range(3))
    assert found[-1] == 1
    passed = float((a * b == c).mean())
    bound = (bits + 2) / 2 ** (bits + 1)
    slack = 5 * np.sqrt(bound / tries)
    assert 2.0**-bits - slack <= passed <= bound + slack
    squared = float((a * a == kernels_named(KERNELS[-1]).sketches(x, 0, left, left)[0][2 * tries : -1]).mean())
    assert bits == 1 or squared > 1.2 * passed


def test_it_costs_what_the_plan_says_and_the_label() -> None:
    rows = np.stack([unit()] * 5)
    _, outcome = refused(rows)

    def program(s: Any) -> None:
        alone(s, s.unit_rows(s.accept(ghost(rows.shape), frac=0, operand=True), SPANS))

    plan, each = PlanRecorder().record(program), len(SPANS) * len(rows)
    assert plan.rounds == outcome.cost.rounds == 4
    assert plan.bytes == outcome.cost.bytes == 2 * (128 + each * 16 * SKETCHES)


def test_plans_of_other_spans_differ() -> None:
    def plan(*spans: tuple[int, int]) -> str:
        return PlanRecorder().record(lambda s: alone(s, s.unit_rows(s.accept(ghost((2, 8)), frac=0), spans))).digest

    assert plan((0, 8)) == plan((0, 8)) != plan((0, 7))


@pytest.mark.parametrize(("shape", "facts", "spans"), [
    ((2, 8), {"frac": 3}, ((0, 8),)), ((2, 8), {"frac": 0, "width": 32}, ((0, 8),)), ((8,), {"frac": 0}, ((0, 8),)),
    ((2, 8), {"frac": 0}, ((0, 9),)), ((2, 8), {"frac": 0}, ((3, 3),)), ((2, 8), {"frac": 0}, ((-1, 3),)),
])
def test_other_rows_are_refused(shape: tuple[int, ...], facts: dict[str, int], spans: Any) -> None:
    s = PlanRecorder()
    with pytest.raises(ShapeError, match="whole words without fractional bits"):
        s.unit_rows(s.accept(ghost(shape), **facts), spans)


def test_the_twin_has_no_shares_to_check() -> None:
    s = PlainSession()
    with pytest.raises(SettingsError, match="plain rows, which need no check"):
        alone(s, s.unit_rows(s.accept(np.eye(3), frac=0), ((0, 3),)))
    assert s._round is None
    for step in (s._digest, s._tags):
        with pytest.raises(SettingsError, match="plain rows, which need no check"):
            step(*[None] * (2 if step == s._digest else 1))
