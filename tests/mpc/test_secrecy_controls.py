"""Controls: mistakes made on purpose, which the tests of secrecy must find (see `labs/parities_lab`), and fair coins,
of which they must say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from parities_lab import leaks, verdict
from secrecy_lab import Input, N, Part, Program, Spoil, View, views_of

from secformer.mpc.dealer.kinds import Kind
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.shares import Share

PAIR = (Input(), Input())
SHORT = Series(5, (0.0, 1.0), (0.0, 0.5))
VERBS: dict[str, tuple[Program, Sequence[Input]]] = {
    "product": (lambda s, x, y: s.mul(x, y, magnitude=6), PAIR),
    "lifted product": (lambda s, x, y: s.mul(Share(s, x.data, 16, 31, 13), y, magnitude=6), PAIR),
    "matrix product": (lambda s, x, y: s.matmul(x.reshape(N, 1, 1), y.reshape(N, 1, 1), magnitude=6), PAIR),
    "truncation": (lambda s, x: s.settle(x * 0.3), PAIR[:1]),
    "series": (lambda s, x: s.series(x, [SHORT]), PAIR[:1]),
    "exponential": (lambda s, x: s.exponential(x, Exponential(5, 0.0)), PAIR[:1]),
    "less": (lambda s, x: s.less(x, [1.0], bound=31.0, precision=2), PAIR[:1]),
    "relu": (lambda s, x: s.relu(x, bound=60.0, precision=1), PAIR[:1]),
    "thresholds": (lambda s, x: s.reached(x, [-3.0], low=-31.0, high=31.0, precision=1, width=16), (Input(2),)),
}


def first_mask(kind: Kind, name: str) -> int | None:
    """The bits of the field, if it is the first mask of its correlation."""
    field = next(f for f in kind.fields() if not f.derived)
    return field.bits if field.name == name else None


def shortened(rank: int, kind: Kind, name: str, words: np.ndarray) -> np.ndarray:
    """The mask has one bit less than what is opened."""
    bits = first_mask(kind, name)
    return words if bits is None else words & np.uint64((1 << (bits - 1)) - 1)


def again(distance: int) -> Spoil:
    """Each so many samples have the masks of those before."""

    def spoil(rank: int, kind: Kind, name: str, words: np.ndarray) -> np.ndarray:
        if first_mask(kind, name) is None or words.size % N:
            return words
        rows = words.reshape(N, -1)
        return np.tile(rows[:distance], (N // distance, 1)).reshape(-1)

    return spoil


def kept() -> Spoil:
    """The second correlation has the masks of the first."""
    drawn: dict[tuple[int, str], np.ndarray] = {}

    def spoil(rank: int, kind: Kind, name: str, words: np.ndarray) -> np.ndarray:
        return words if first_mask(kind, name) is None else drawn.setdefault((rank, name), words)

    return spoil


def seen(views: Sequence[View]) -> list[str]:
    """What is found in the openings alone, as by somebody who does not look at the party's own masks."""
    return leaks([replace(v, parts=[p for p in v.parts if p.opened]) for v in views])


@pytest.mark.parametrize("verb", VERBS)
def test_a_mask_one_bit_too_narrow_is_found_at_both_parties(verb: str) -> None:
    program, inputs = VERBS[verb]
    for view in views_of(program, inputs, spoil=shortened):
        found = [p for p in view.parts if p.opened or "without" in p.name or p.name == "which secret"]
        assert leaks([replace(view, parts=found)]), f"party {view.rank}"


@pytest.mark.parametrize("distance", [1, 2, 256, N // 2])
@pytest.mark.parametrize("verb", ["product", "truncation", "less"])
def test_a_mask_that_serves_two_samples_is_found_in_the_openings(verb: str, distance: int) -> None:
    program, inputs = VERBS[verb]
    for view in views_of(program, inputs, spoil=again(distance)):
        found = verdict(replace(view, parts=[p for p in view.parts if p.opened])).unfair
        assert any(f.endswith(f" distance {distance}") for f in found), f"party {view.rank}"


@pytest.mark.parametrize("verb", ["product", "truncation", "series", "less"])
def test_a_mask_that_serves_two_correlations_is_found_in_the_openings(verb: str) -> None:
    program, inputs = VERBS[verb]

    def twice(s: Any, *xs: Share) -> None:
        program(s, *xs)
        program(s, *(-x for x in xs))

    assert seen(views_of(twice, inputs)) == []
    views = views_of(twice, inputs, spoil=kept())
    assert {found[:7] for found in seen(views)} == {"party 0", "party 1"}


def test_a_mask_of_one_bit_in_the_dealers_corrections_is_found() -> None:
    """A correction that is not masked by party 0's part: it has a bit of party 1's own mask."""
    own: dict[str, np.ndarray] = {}

    def spoil(rank: int, kind: Kind, name: str, words: np.ndarray) -> np.ndarray:
        if rank == 1 and first_mask(kind, name):
            own["mask"] = words
        if rank == 1 and name == "product0":
            return (words & ~np.uint64(1)) | (own["mask"] >> np.uint64(7) & np.uint64(1))
        return words

    program, inputs = VERBS["product"]
    found = leaks(views_of(program, inputs, spoil=spoil))
    assert any(f.startswith("party 1") and "mask0" in f and "product0" in f for f in found)


# ---- the test itself ------------------------------------------------------------------------------------------------


def view(words: np.ndarray, bits: int, **facts: Any) -> View:
    return View(0, [Part("words", words.astype(np.uint64), bits, **facts)])


def uniform(columns: int, bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, size=(columns, N), dtype=np.uint64)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_in_fair_coins(seed: int) -> None:
    found = verdict(view(uniform(5, 32, seed), 32, group=0, opened=True))
    assert found.unfair == []
    assert found.parities >= 160 * (3 * 160 - 1) // 2 + 160 + 160 * N + (1 << 18)


def test_every_kind_of_parity_is_found() -> None:
    rng = np.random.default_rng(5)
    rare = (rng.random(N) < 0.15).astype(np.uint64)  # what hides a parity: it is 1 with probability 0.15
    words = uniform(3, 8)
    assert verdict(view(words & ~np.uint64(32) | rare << np.uint64(5), 8)).unfair[:3] == [
        "words[5]", "words[13]", "words[21]"]
    pair = words.copy()
    pair[2] = pair[2] & ~np.uint64(1) | (pair[0] >> np.uint64(3) & np.uint64(1)) ^ rare
    assert verdict(view(pair, 8)).unfair == ["words[3] and words[16]"]
    late = words.copy()
    late[1] = late[1] & ~np.uint64(1) | np.roll(late[0] >> np.uint64(3) & np.uint64(1), 1) ^ rare
    assert verdict(view(late, 8)).unfair == ["words[3] and words[8] of the next sample"]
    far = words.copy()
    far[0, 1000:] = far[0, 1000:] & ~np.uint64(2) | far[0, :-1000] & np.uint64(2)
    assert verdict(view(far, 8)).unfair == []
    assert verdict(view(far, 8, opened=True)).unfair[0] == "words and the same at distance 1000"
    three = uniform(1, 8)
    bit = [three >> np.uint64(k) & np.uint64(1) for k in range(8)]
    three = three & ~np.uint64(1) | bit[3] ^ bit[6]
    assert verdict(view(three, 8)).unfair == []
    assert [set(f.split(": ")[1].split(" and ")) for f in verdict(view(three, 8, group=0)).unfair] == \
        [{"words[0]", "words[3]", "words[6]"}]


def test_a_view_of_too_many_parities_is_refused() -> None:
    with pytest.raises(AssertionError, match="parities in one view"):
        verdict(View(0, [Part("words", np.zeros((150, N), np.uint64), 64)]))
