"""What a party that deviates reads, outside the model: see docs/authenticated.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secformer.mpc.net.channel import Channel, local_pair
from secformer.mpc.net.wire import Tag
from secformer.mpc.ops import unit_rows
from secformer.mpc.prg import Stream
from secformer.mpc.simulate import World
from secformer.mpc.unit_rows import SKETCHES

WORDS, LAST = 500, 3  # the last of the check's messages


class Waiting(Channel):
    """Party 1's end: before the last message it waits for party 0's, and sends what makes the sum 0."""

    def __init__(self, inner: Channel):
        super().__init__(inner.peer)
        self._inner, self._sent, self._came = inner, 0, None

    def send(self, tag: Tag, payload: Any) -> None:
        self._sent += 1
        if self._sent == LAST:
            self._came = self._inner.receive(tag, payload.size)
            payload = (-np.asarray(self._came).view(np.uint64)).view(np.uint8)
        self._inner.send(tag, payload)

    def receive(self, tag: Tag, nbytes: int) -> Any:
        return self._inner.receive(tag, nbytes) if self._came is None else self._came

    def abort(self, reason: str) -> None:
        self._inner.abort(reason)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("word", [0, 7, WORDS - 1])
def test_a_cheating_party_reads_a_word_from_the_check_of_rows(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Party 1 adds 1 to its share of entry 3. The opened words then depend on the client's word, and party 0 sees
    zeros. When this fails because the check was mended, say so in the document."""
    coins, under = [], Stream.under

    def tossed(words: Any, kernels: Any) -> Stream:
        coins.append((words, kernels))
        return under(words, kernels)

    monkeypatch.setattr(unit_rows.Stream, "under", tossed)
    row = np.zeros((1, WORDS), np.uint64)
    mask = np.random.default_rng(word).integers(0, 2**64, (1, WORDS), dtype=np.uint64)
    row[0, word] = 1
    wrong = mask.copy()
    wrong[0, 3:4] += np.uint64(1)

    def connect(a: str, b: str) -> tuple[Channel, Channel]:
        first, second = local_pair(a, b)
        return first, Waiting(second)

    outcome = World(backend="numpy", connect=connect).run(
        lambda s, words: s.unit_rows(s.accept(words, frac=0, operand=True), ((0, WORDS),)), row - mask, wrong)
    assert not outcome.results[0].any(), "party 0 sees an honest client"
    seen = outcome.results[1][0, 0, :SKETCHES]
    left, right = under(*coins[0]).words(2 * SKETCHES * WORDS).reshape(2, SKETCHES, WORDS)
    # (e_t + e_3) in place of e_t: the words that each t would give
    guess = left[:, 3:4] * right + right[:, 3:4] * left
    assert np.flatnonzero((guess == seen[:, None]).all(axis=0)).tolist() == [word]
