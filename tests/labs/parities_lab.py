"""A test that tells a view that leaks (see `secrecy_lab`) from fair coins: parities of its bits.

N samples of one run. A parity is the sum modulo 2 of some bits of the view. Under the claim the parities of the N
samples are N independent fair coins, so by Hoeffding's inequality the number of ones is t sqrt(N) / 2 away from N / 2
with a probability of at most 2 exp(-t^2 / 2). Tested are: every bit; every pair of bits; every pair of a bit of one
sample and a bit of the next one; for opened words every bit and the same bit of every other sample; and, for each
correlation, all parities of LETTERS bits at the ends of its words.

With T = 9, MOST_VIEWS views of MOST_PARITIES parities fail with a probability below 1e-6, all together (`FALSE_ALARM`:
the sum of the bounds of all parities, which need not be independent of each other). A view of more parities is refused.
Seeds are fixed, so the verdicts are, too. A parity that is 1 with a probability of 0.6 or more, or of 0.4 or less, is
found, but for a chance below 1e-3; at 0.65 and 0.35, below 1e-22 (`missed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from secrecy_lab import N, Part, View

T = 9.0       # deviations that are tolerated, in units of sqrt(N)
LETTERS = 18  # bits whose parities are all tested, per correlation
MOST_VIEWS, MOST_PARITIES = 1 << 9, 1 << 27
FALSE_ALARM = MOST_VIEWS * MOST_PARITIES * 2.0 * math.exp(-T * T / 2.0)


def missed(bias: float) -> float:
    """A bound on the chance that a parity is not found that is 1 with probability 0.5 + bias (Hoeffding)."""
    return math.exp(-max(0.0, 2.0 * bias * math.sqrt(N) - T) ** 2 / 2.0)


@dataclass(frozen=True)
class Verdict:
    """What a test found: parities that are not fair, and how many were looked at."""

    unfair: list[str]
    parities: int


def verdict(view: View, *, most: int | None = None, letters: int = LETTERS, after: bool = True) -> Verdict:
    """Tests a view. With `most`, only so many bits of each part (spread evenly) go into the pairs. Without `after`, the
    next sample is left out. `letters` bits of each correlation have all their parities tested."""
    parts = [(p, _bits_of(p)) for p in view.parts]
    every = np.concatenate([bits for _, bits in parts])
    names = [f"{p.name}[{c}]" for p, bits in parts for c in range(len(bits))]
    chosen, start = [], 0
    for _, bits in parts:
        n = len(bits) if most is None else min(most, len(bits))
        chosen.append(start + np.unique(np.linspace(0, len(bits) - 1, n).astype(int)))
        start += len(bits)
    found = [f"{names[i]}" for i in np.flatnonzero(_far(_ones(_packed(every)), N))]
    pick = np.concatenate(chosen)
    parities = len(every) + len(pick) * (len(pick) - 1) // 2 + after * len(pick) ** 2
    parities += sum(len(bits) * N for part, bits in parts if part.opened)
    words = {group: _letters(parts, group, letters) for group in sorted({p.group for p, _ in parts if p.group >= 0})}
    parities += sum(1 << len(those) for those in words.values())
    assert parities <= MOST_PARITIES, f"{parities} parities in one view; use fewer bits"
    unfair = _pairs(every[pick], after)
    found += [f"{names[pick[i]]} and {names[pick[j]]}{' of the next sample' if after else ''}"
              for i, j, after in unfair]
    for part, bits in parts:
        if part.opened:
            found += [f"{part.name} and the same at distance {lag}" for lag in _lags(bits)]
    for group, those in words.items():
        found += [f"correlation {group}: {' and '.join(which)}" for which in _words(those)]
    return Verdict(found, parities)


def _bits_of(part: Part) -> np.ndarray:
    """(columns * bits, N) of 0 and 1."""
    nbytes = -(-part.bits // 8)
    raw = np.ascontiguousarray(part.words.astype("<u8")).view(np.uint8).reshape(*part.words.shape, 8)[..., :nbytes]
    bits = np.unpackbits(raw, axis=-1, bitorder="little")[..., : part.bits]
    return np.ascontiguousarray(bits.transpose(0, 2, 1)).reshape(-1, N)


def _packed(bits: np.ndarray) -> np.ndarray:
    """64 samples in a word; missing ones are 0."""
    short = -bits.shape[1] % 64
    return np.packbits(np.pad(bits, ((0, 0), (0, short))) if short else bits, axis=1).view(np.uint64)


def _ones(packed: np.ndarray) -> np.ndarray:
    return np.bitwise_count(packed).sum(axis=-1, dtype=np.uint16).astype(np.int64)


def _far(ones: np.ndarray, n: int) -> np.ndarray:
    """Which numbers of ones among n fair coins are too far from n / 2."""
    return np.asarray(np.abs(2 * ones - n) >= T * math.sqrt(n))


def _pairs(bits: np.ndarray, after: bool) -> list[tuple[int, int, bool]]:
    """Pairs of bits of one sample, and of a sample and its next, that are not fair."""
    found, here = [], _packed(bits)
    now, then = _packed(bits[:, :-1]), _packed(bits[:, 1:])
    for i in range(len(bits)):
        rest = _far(_ones(here[i] ^ here[i + 1 :]), N)
        found += [(i, int(i + 1 + j), False) for j in np.flatnonzero(rest)]
        if after:
            found += [(i, int(j), True) for j in np.flatnonzero(_far(_ones(now[i] ^ then), N - 1))]
    return found


def _lags(bits: np.ndarray) -> list[int]:
    """Distances at which a bit of a sample and the same bit of another are not fair."""
    signs = np.zeros((len(bits), 2 * N))
    signs[:, :N] = 1.0 - 2.0 * bits
    spectrum = np.fft.rfft(signs, axis=1)
    sums = np.rint(np.fft.irfft(np.abs(spectrum) ** 2, n=2 * N, axis=1))[:, 1:N]
    return sorted({int(lag) + 1 for lag in np.flatnonzero((np.abs(sums) >= T * math.sqrt(N)).any(axis=0))})


def _letters(parts: Sequence[tuple[Part, np.ndarray]], group: int, most: int) -> list[tuple[str, np.ndarray]]:
    """Up to so many bits of a correlation, of the inputs and of what says which secret it is: from both ends of every
    part's first word, in turn."""
    taking = [(p, bits) for p, bits in parts if not p.combined and p.group in (-1, group)]
    queues = []
    for p, bits in taking:
        ends = [k for pair in zip(range(p.bits), reversed(range(p.bits)), strict=True) for k in pair]
        queues.append([(f"{p.name}[{k}]", bits[k]) for k in dict.fromkeys(ends)])
    letters: list[tuple[str, np.ndarray]] = []
    while len(letters) < most and any(queues):
        letters += [queue.pop(0) for queue in queues if queue]
    return letters[:most]


@cache
def _signs(bits: int) -> np.ndarray:
    """(-1)^(parity of i & j), for all words i, j of so many bits."""
    words = np.arange(1 << bits)
    return (1 - 2 * (np.bitwise_count(words[:, None] & words) & 1).astype(np.int8)).astype(np.float32)


def _words(letters: Sequence[tuple[str, np.ndarray]]) -> list[list[str]]:
    """Sets of letters whose parity is not fair: all of them, by a Walsh-Hadamard transform of the words' counts."""
    word = sum((bits.astype(np.int64) << k for k, (_, bits) in enumerate(letters)), np.zeros(N, np.int64))
    low = len(letters) // 2
    counts = np.bincount(word, minlength=1 << len(letters)).astype(np.float32)  # whole numbers up to N: exact
    sums = (_signs(len(letters) - low) @ counts.reshape(-1, 1 << low) @ _signs(low)).reshape(-1)
    far = np.flatnonzero(np.abs(sums[1:]) >= T * math.sqrt(N)) + 1
    return [[name for k, (name, _) in enumerate(letters) if s >> k & 1] for s in far.tolist()]


def leaks(views: Sequence[View], *, most: int | None = None, letters: int = LETTERS, after: bool = True) -> list[str]:
    """What is wrong with both parties' views."""
    return [f"party {view.rank}: {what}" for view in views
            for what in verdict(view, most=most, letters=letters, after=after).unfair[:20]]
