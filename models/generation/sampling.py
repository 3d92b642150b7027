"""The choice of the next token: from logits in plaintext, by the client alone.

Names, defaults, order and edge cases are those of `generate` of the package `transformers`. V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from secformer.mpc.errors import RangeError, SettingsError, ShapeError
from secformer.mpc.prg import fresh_seed

LEAST = 1e-6  # of a temperature and a penalty: scores that are divided by less need not be finite
TOP_K = 50  # tokens: what `transformers` keeps where sampling is asked for and top_k is not given


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and when to stop. Raises SettingsError for a value that is not allowed.

    Tokens are sampled where `temperature`, `top_k` or `top_p` is given, and `temperature` is not 0. Otherwise decoding
    is greedy: the token with the largest logit is taken, the first one of equals.

    max_new_tokens      the most tokens to generate
    temperature         what logits are divided by, at least 1e-6; None: 1; 0: greedy
    top_k               keep the k largest logits, and those equal to the last of them; None: 50; 0: keep all
    top_p               keep the fewest most probable tokens whose probabilities sum up to top_p, in 0..1; of equally
                        probable ones, those with the larger ids; None: 1
    repetition_penalty  at least 1e-6; the logits of tokens that are in the prompt or were generated are divided by it
                        where they are positive, else multiplied with it; 1: no penalty
    stop                a text, or several, that end the generation; they are not part of the answer
    seed                a whole number, at least 0: equal seeds make equal choices; None: a fresh one
    """

    max_new_tokens: int = 20
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    stop: str | Sequence[str] = field(default=(), repr=False)
    seed: int | None = None

    def __post_init__(self) -> None:
        _require("max_new_tokens", _is_whole(self.max_new_tokens) and self.max_new_tokens > 0, self.max_new_tokens,
                 "a positive whole number")
        _require("temperature", self.temperature is None or _is_divisor(self.temperature)
                 or (_is_number(self.temperature) and self.temperature == 0), self.temperature,
                 f"a number from {LEAST} to {1 / LEAST:g}, or 0 or None for greedy decoding")
        _require("top_k", self.top_k is None or (_is_whole(self.top_k) and self.top_k >= 0), self.top_k,
                 "a whole number of tokens, 0 for all, or None")
        _require("top_p", self.top_p is None or (_is_number(self.top_p) and 0 <= self.top_p <= 1), self.top_p,
                 "a probability from 0 to 1, or None")
        _require("repetition_penalty", _is_divisor(self.repetition_penalty), self.repetition_penalty,
                 f"a number from {LEAST} to {1 / LEAST:g}, 1 for no penalty")
        _require("seed", self.seed is None or (_is_whole(self.seed) and self.seed >= 0), self.seed,
                 "a whole number that is not negative, or None")
        listed = isinstance(self.stop, Sequence) and not isinstance(self.stop, bytes | bytearray)
        _require("stop", listed and all(isinstance(each, str) and each for each in self.stops),
                 type(self.stop).__name__, "a text or a list of texts, none of which is empty")

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the generation."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def do_sample(self) -> bool:
        """Whether tokens are sampled; False: decoding is greedy."""
        given = any(each is not None for each in (self.temperature, self.top_k, self.top_p))
        return given and self.temperature != 0


@dataclass(frozen=True)
class Choice:
    """A chosen token. `repr` shows nothing, because it is part of a secret text.

    token    its id
    logprob  the natural logarithm of its probability by the model's own logits, before any of the settings
    """

    token: int = field(repr=False)
    logprob: float = field(repr=False)


class Chooser:
    """Chooses the tokens of one generation, in order. It draws one random number for each sampled token."""

    def __init__(self, sampling: Sampling):
        self.sampling = sampling
        seed = int.from_bytes(fresh_seed(), "little") if sampling.seed is None else sampling.seed
        self._numbers = np.random.default_rng(seed)

    def choose(self, logits: np.ndarray, ids: Sequence[int]) -> Choice:
        """The next token.

        logits  (V,), finite
        ids     the tokens so far: the prompt, then what was generated

        Raises ShapeError for logits of another shape, and RangeError for logits that are not finite.
        """
        row = _row(logits)
        scores = processed(row, ids, self.sampling)
        token = self._drawn(scores) if self.sampling.do_sample else int(np.argmax(scores))
        return Choice(token, float(log_softmax(row)[token]))

    def _drawn(self, scores: np.ndarray) -> int:
        ends = np.cumsum(np.exp(scores - scores.max()))
        place = int(np.searchsorted(ends, self._numbers.random() * ends[-1], side="right"))
        return place if place < len(ends) else int(np.flatnonzero(scores > -np.inf)[-1])  # a product rounded up


def processed(logits: np.ndarray, ids: Sequence[int], sampling: Sampling) -> np.ndarray:
    """The scores (V,) that tokens are chosen by, from logits (V,); -inf for tokens that cannot be chosen.

    1. Penalise the tokens so far
    2. Where tokens are sampled: divide by the temperature
    3. keep the top k
    4. keep the top p
    """
    scores = np.array(logits, np.float64)
    if sampling.repetition_penalty != 1:                                                                       # 1
        seen = np.unique(np.asarray(ids, np.int64))
        seen = seen[seen < len(scores)]  # a table of words may have more rows than the head
        penalty, found = sampling.repetition_penalty, scores[seen]
        scores[seen] = np.where(found < 0, found * penalty, found / penalty)
    if not sampling.do_sample:
        return scores
    if sampling.temperature is not None:                                                                       # 2
        scores /= sampling.temperature
    if top_k := TOP_K if sampling.top_k is None else sampling.top_k:                                           # 3
        kept = min(top_k, len(scores))
        scores[scores < np.partition(scores, -kept)[-kept]] = -np.inf
    if sampling.top_p is not None and sampling.top_p < 1:                                                      # 4
        order = np.argsort(scores, kind="stable")  # from the least probable
        below = np.cumsum(np.exp(log_softmax(scores[order]))) <= 1 - sampling.top_p
        scores[order[:-1][below[:-1]]] = -np.inf   # the most probable token stays
    return scores


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities that logits (V,) stand for."""
    shifted = scores - scores.max()
    return np.asarray(shifted - math.log(np.exp(shifted).sum()))


def _row(logits: np.ndarray) -> np.ndarray:
    row = np.asarray(logits, np.float64)
    if row.ndim != 1 or not row.size:
        raise ShapeError(f"the logits of the next token must have the shape (V,), got {row.shape}")
    if not np.isfinite(row).all():
        raise RangeError(f"the logits of the next token must be finite; {int((~np.isfinite(row)).sum())} of {row.size} "
                         f"are not, so no token can be chosen. A guard that replaces untrusted values by NaN does this")
    return row


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_divisor(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and LEAST <= value <= 1 / LEAST


def _require(name: str, holds: bool, came: object, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"{name} must be {wanted}, got {came!r}")
