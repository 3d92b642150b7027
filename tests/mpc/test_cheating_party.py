"""What a party that deviates reads from the check of clients' rows: see docs/authenticated.md.

Party 1 adds 1 to its share of one entry of a row. In place of 0, the parties then hold words that name the client's
word. A check that opened them, as ours once did, would tell it. This one answers one question, and party 0 notices a
"no".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpc_lab import alone, looks_uniform, tapped

from secformer.mpc.net.channel import Channel, local_pair
from secformer.mpc.net.wire import Tag
from secformer.mpc.ops import zero
from secformer.mpc.prg import Stream
from secformer.mpc.simulate import World
from secformer.mpc.unit_rows import SKETCHES

WORDS, BENT = 500, 3
Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]  # the tag that came, its own -> what party 1 sends


class Late(Channel):
    """Party 1's end: before it sends its tag it waits for party 0's."""

    def __init__(self, inner: Channel, answer: Answer):
        super().__init__(inner.peer)
        self._inner, self._answer, self._came = inner, answer, None

    def send(self, tag: Tag, payload: Any) -> None:
        if tag.verb == "tag":
            self._came = self._inner.receive(tag, payload.size)
            payload = self._answer(np.array(self._came), np.array(payload))
        self._inner.send(tag, payload)

    def receive(self, tag: Tag, nbytes: int) -> Any:
        return self._inner.receive(tag, nbytes) if self._came is None else self._came

    def abort(self, reason: str) -> None:
        self._inner.abort(reason)

    def close(self) -> None:
        self._inner.close()


class Attack:
    """One run of the check of one row, with a 1 at `word`.

    found    what both parties are told
    zeros    what they hold in place of zeros, added up: [z of each sketch, the row's sum minus 1]
    vectors  r and s of each sketch, which are public
    """

    def __init__(self, patch: pytest.MonkeyPatch, word: int, guess: int | None = None, *, seed: int = 0,
                 connect: Any = local_pair) -> None:
        coins: list[Any] = []
        held: list[np.ndarray] = []
        rng = np.random.default_rng(seed)
        row, share = np.zeros((1, WORDS), np.uint64), rng.integers(0, 2**64, (1, WORDS), dtype=np.uint64)
        row[0, word] = 1
        wrong = share.copy()
        wrong[0, BENT : BENT + 1] += np.uint64(1)
        under, digest = Stream.under, zero.digest

        def tossed(words: Any, kernels: Any) -> Stream:
            coins.append((words, kernels))  # the first is the coin
            return under(words, kernels)

        def asked(party: Any, words: Any, coin: Any) -> Any:
            held.append(words.reshape(-1))
            self.vectors = under(*coins[0]).words(2 * SKETCHES * WORDS).reshape(2, SKETCHES, WORDS)
            if party.rank == 1 and guess is not None:
                words = words - self.would_be(guess).reshape(words.shape)
            return digest(party, words, coin)

        with patch.context() as now:
            now.setattr(Stream, "under", tossed)
            now.setattr(zero, "digest", asked)
            self.found = World(backend="numpy", connect=connect, unsafe_seeds=(rng.bytes(32), rng.bytes(32))).run(
                lambda s, words: alone(s, s.unit_rows(s.accept(words, frac=0, operand=True), ((0, WORDS),))),
                row - share, wrong).results
        self.zeros = held[0] + held[1]

    def would_be(self, word: int) -> np.ndarray:
        """The words in place of zeros if the client's word were this one: of e_word + e_BENT."""
        r, s = self.vectors
        return np.append(r[:, word] * s[:, BENT] + r[:, BENT] * s[:, word], np.uint64(1))

    @property
    def noticed(self) -> bool:
        return bool(self.found[0].any())


@pytest.mark.parametrize("word", [0, 7, WORDS - 1])
def test_what_is_not_opened_would_name_the_word(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: whoever had the words in place of zeros would know the client's word. Party 0 notices."""
    attack = Attack(monkeypatch, word)
    assert [t for t in range(WORDS) if (attack.would_be(t) == attack.zeros).all()] == [word]
    assert attack.noticed and attack.found[1].any()


@pytest.mark.parametrize("answer", [lambda came, own: own, lambda came, own: came, lambda came, own: 0 * came,
                                    lambda came, own: (-came.view(np.uint64)).view(np.uint8),
                                    lambda came, own: came ^ own],
                         ids=["its own", "what came", "zeros", "minus what came", "both"])
def test_nothing_that_a_late_party_answers_hides_it(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(a: str, b: str) -> tuple[Channel, Channel]:
        first, second = local_pair(a, b)
        return first, Late(second, answer)

    assert Attack(monkeypatch, 7, connect=connect).noticed


def test_one_question_is_answered_and_a_no_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left to a party that deviates: it asks for one word, and party 0 knows unless that is the word."""
    for word, guess in ((7, 7), (7, 8), (BENT, 7), (0, WORDS - 1), (WORDS - 1, WORDS - 1)):
        attack = Attack(monkeypatch, word, guess)
        assert attack.noticed == bool(attack.found[1].any()) == (word != guess)


def test_what_it_receives_are_uniform_words_whatever_the_word_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of party 0's messages, where the answer is no: for one word, for another, and what differs between them."""
    views = []
    for word, seeds in ((7, range(72)), (400, range(72, 144))):
        logs: Any = ([], [])
        for seed in seeds:
            assert Attack(monkeypatch, word, guess=9, seed=seed, connect=tapped(logs)).noticed
        assert [tag.verb for tag, _ in logs[0][:4]] == ["coin", "product", "digest", "tag"]
        views.append(np.stack([np.concatenate([p for _, p in logs[0][k : k + 4]]).view(np.uint64)
                               for k in range(0, len(logs[0]), 4)]))
    first, second = views
    assert first.shape == (72, 4 + 2 * SKETCHES + 8 + 4)
    for words in (first, second, first - second, first[1:] - first[:-1]):
        assert looks_uniform(words.reshape(-1), 64)
