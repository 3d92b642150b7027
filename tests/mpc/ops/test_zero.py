"""The test whether shared words are 0: what passes, what it costs, and what each party is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpc_lab import KERNELS, SEEDS, Sent, alone, kernels_named, split, tapped, whether_zero

from secformer.mpc.dealer.products import UnknownFactor
from secformer.mpc.ops import zero
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.simulate import World

Logs = tuple[list[Sent], list[Sent]]


def told(words: np.ndarray, kernels: str = KERNELS[-1], seed: int = 0, logs: Logs | None = None, **world: Any) -> Any:
    """What both parties are told of shared words, and the outcome."""
    def program(s: Any, mine: np.ndarray) -> Any:
        return alone(s, whether_zero(s, s.accept(mine, frac=0)))

    link = {"connect": tapped(logs)} if logs is not None else {}
    halves = split(words, np.random.default_rng(seed))
    outcome = World(kernels=kernels_named(kernels), **link, **world).run(program, *halves)
    return outcome.results, outcome


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3, 5)])
def test_zeros_pass_however_they_are_shared(kernels: str, shape: tuple[int, ...]) -> None:
    for seed in range(5):
        first, second = told(np.zeros(shape, np.uint64), kernels, seed)[0]
        assert first.shape == second.shape == (zero.WORDS,) and not first.any() and not second.any()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("word", [1, 2, 1 << 31, 1 << 32, 1 << 62, 1 << 63, 2**64 - 1, 2**64 - 2**32, 987654321 << 30])
def test_one_word_that_is_not_zero_fails_at_both_parties(kernels: str, word: int) -> None:
    """A product with a random word would let 2^63 pass every second time."""
    for at in (0, 4):
        words = np.zeros(5, np.uint64)
        words[at] = word
        for seed in range(6):
            first, second = told(words, kernels, seed)[0]
            assert first.any() and second.any()


def test_words_that_cancel_each_other_fail() -> None:
    for words in ([1, 2**64 - 1], [1 << 63, 1 << 63], [5, 2**64 - 2, 2**64 - 3]):
        first, second = told(np.array(words, np.uint64))[0]
        assert first.any() and second.any()


def test_all_kernels_send_the_same() -> None:
    words, sent = np.array([0, 1 << 40, 3], np.uint64), []
    for name in KERNELS:
        logs: Logs = ([], [])
        told(words, name, logs=logs, unsafe_seeds=SEEDS)
        sent.append([[payload.tobytes() for _, payload in log] for log in logs])
    assert all(each == sent[0] for each in sent)


@pytest.mark.parametrize("count", [1, 100])
def test_it_costs_the_same_for_any_number_of_words(count: int) -> None:
    logs: Logs = ([], [])
    _, outcome = told(np.zeros(count, np.uint64), logs=logs)
    plan = PlanRecorder().record(lambda s: alone(s, whether_zero(s, s.accept(ghost((count,)), frac=0))))
    assert plan.rounds == outcome.cost.rounds == 1 + 2
    assert plan.bytes == outcome.cost.bytes == 2 * (32 + 64 + 32)
    assert plan.kinds[1] == zero.KIND == UnknownFactor(8, 4)
    assert zero.KIND.corrections == 32 and zero.KIND.opened == 64
    assert [[tag.verb for tag, _ in log] for log in logs] == [["coin", "digest", "tag"]] * 2


def test_the_tags_of_the_parties_differ_so_that_none_can_be_sent_back() -> None:
    logs: Logs = ([], [])
    told(np.zeros(3, np.uint64), logs=logs)
    first, second = (log[-1][1].tobytes() for log in logs)
    assert len(first) == len(second) == zero.TAG_BYTES and first != second


@pytest.mark.parametrize("power", [0, 16, 31])
def test_a_key_whose_test_fails_cannot_be_searched_for(power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both keys differ by d M, in words that are multiples of 2^power and else uniform: 33 bits of each word are
    unknown for the worst d there is."""
    keys: list[np.ndarray] = []
    digest = zero.digest

    def taken(party: Any, words: Any, coin: Any) -> Any:
        found = yield from digest(party, words, coin)
        keys.extend(found)
        return found

    monkeypatch.setattr(zero, "digest", taken)
    monkeypatch.setattr(zero, "_halves", lambda party, words: _one_half(words, party.rank == 0, 1 << power))
    differences = []
    for seed in range(40):
        keys.clear()
        told(np.zeros(1, np.uint64), seed=seed)
        assert len(keys) == 2
        differences.append(keys[0] - keys[1])
    found = np.concatenate(differences)
    assert not (found & np.uint64((1 << power) - 1)).any()
    ones = np.array([((found >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(power, 64)])
    assert (np.abs(ones - 0.5) < 0.25).all(), "all other bits look like fair coins"


def _one_half(words: np.ndarray, first: bool, half: int) -> np.ndarray:
    """Digests that differ in one half, by `half`."""
    found = np.zeros((1, 2 * words.size), np.uint64)
    found[0, 0] = half if first else 0
    return found
