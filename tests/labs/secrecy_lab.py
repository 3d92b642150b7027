"""What one party has of a run, its whole view, word by word. `parities_lab` tells a view that leaks from fair coins.

**The view.** A party's shares of the inputs, all fields of all correlations that it draws (its masks; at party 1 the
dealer's corrections, at party 0 what stands for them), and all messages that it receives. It is recorded while the real
protocol runs. Beside it stand the opened words, and the opened words without the party's own part of the mask: whoever
studies a view would look at those first.

**The claim.** Whatever the secrets are, the bits of a view are independent fair coins: a message is masked by a share
that only its sender has, and a correction by one that only party 0 has. Secrets are drawn for every sample among a few
values, extreme ones among them. Two coins say which value it is. They stand among the bits of the view, so a view that
depends on the secret is found by the same test.

**What is worked out of a view** is no new word, so it may depend on others of the same view and tell nothing. Five
such pairs were met. All follow from what one party holds already:

1. An opened word u = m + m', of which m is the party's own message, with u - v for an own word v of fewer bits than u:
   the bits above v are those of u, but for a borrow. So v is taken away only where it has all the bits of u (a row of a
   cache is opened in 64 bits, beside an operand whose mask has 40). A mask that is too narrow is found without this:
   the opened word's highest bits then depend on the mask's, or on the secret.
2. A row of a cache is opened as d = y - b, once. Its mask b is drawn with those of all slots, in the step that grows
   the cache; a later step draws none. So an opening looks for its mask among the standing ones of earlier steps, too.
   Both steps' openings of one row value y are d1 = y - b1 and d2 = y - b2, with masks of two slots, and a product with
   rows that came before opens nothing of them: step 2 has x - a with a fresh a, and d2. Given a party's own shares of
   y, a, b1, b2, the other's shares of a, b1, b2 are uniform and used once, so the view is uniform.
3. The operand x - (-x) of a selection has shares 2 x_0 and 2 x_1, whose lowest bit is 0. Then m' = u - m in that bit.
   It is a public fact about shares, as is a bit that shifts in. Cases here use two secrets instead.

4. A public number c enters a product as the shares c and 0, such as the first guess of an iteration; a share that is
   multiplied by a public even number ends with zeros. Then an opening without the own mask is the message that came,
   plus something public. Views of recipes, and of secrets that one party holds alone, leave these words out.
5. The halves of a digest have 32 bits and are equal at both parties, so a digest's opening without the own mask is the
   message that came, minus what the receiver knows. It is left out, as for coins and tags, which have no mask.
6. A sketch <r, x> of a share, with public r, is even where all entries of r are. So unit rows here have many columns.

The tag that a party receives at the end of a check of unit rows is no news: it follows from the party's own key. It
stands in the view as every message does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from mpc_lab import SEEDS, ULP, Sent, kernels_named, split, tapped, wire_words

from secformer.mpc.dealer.correlations import Material
from secformer.mpc.dealer.kinds import ExpMask, Kind, SeriesMask
from secformer.mpc.dealer.thresholds import Empty
from secformer.mpc.fixed import encode
from secformer.mpc.kernels.reference import NumpyKernels
from secformer.mpc.party import Party
from secformer.mpc.sessions.secure import SecureSession
from secformer.mpc.simulate import World

N = 4096  # samples of a run
VALUES = (0.0, ULP, 31.0, ULP - 31.0)  # which secret it is: two bits
SECRETS = 2
ALIKE = ("coin", "digest", "tag")  # what is opened without a mask, or whose operand both parties know
Program = Callable[..., Any]
Spoil = Callable[[int, Kind, str, np.ndarray], np.ndarray]  # rank, kind, field, words -> words: a mistake, on purpose


@dataclass(frozen=True)
class Part:
    """Words of a view: (columns, N), in `bits` bits.

    group     the correlation that they belong to, or -1
    combined  whether they are worked out of other parts: an opened word, a guess
    opened    whether they are what the party learns by an opening
    """

    name: str
    words: np.ndarray
    bits: int
    group: int = -1
    combined: bool = False
    opened: bool = False


@dataclass
class View:
    """One party's view of one run, or of several runs together.

    few  names of what is smaller than N samples, and was left out
    """

    rank: int
    parts: list[Part] = field(default_factory=list)
    small: dict[tuple[str, int], list[np.ndarray]] = field(default_factory=dict)
    few: list[str] = field(default_factory=list)
    kinds: set[type[Kind]] = field(default_factory=set)
    verbs: set[str] = field(default_factory=set)
    correlations: int = 0
    taken: list[Watched] = field(default_factory=list, repr=False)  # of all runs: masks of caches stand

    def add(self, name: str, words: np.ndarray, bits: int, planes: int = 1, **where: Any) -> None:
        """Words of N samples, so many planes of them one behind the other; or of fewer, to be joined with others."""
        flat = np.array(words, dtype=np.uint64).reshape(-1)
        if flat.size % N and bits == 64 and 64 * flat.size % N == 0:  # bits of 64 elements in one word
            flat, bits = np.unpackbits(flat.view(np.uint8), bitorder="little").astype(np.uint64), 1
        if flat.size % (planes * N):
            self.small.setdefault((name, bits), []).append(flat)
            return
        columns = flat.reshape(planes, N, -1).transpose(0, 2, 1).reshape(-1, N)
        self.parts.append(Part(f"{name} ({self.correlations})", columns, bits, **where))

    def close(self) -> None:
        """Joins what came in small pieces."""
        for (name, bits), pieces in self.small.items():
            words = np.concatenate(pieces)
            if words.size % N:
                self.few.append(name)
            else:
                self.parts.append(Part(name, words.reshape(N, -1).T, bits, combined=True))  # by sample, if pieces are
        self.small.clear()

    def without_guesses(self) -> View:
        """The view without openings whose own mask was taken away: where the own share of an operand is public, as of a
        public number, they are messages once more."""
        return replace(self, parts=[p for p in self.parts if p.opened or not p.combined])


def planes_of(kind: Kind, name: str, count: int) -> int:
    """How many planes a field has: words that belong to all samples in turn, one behind the other."""
    if name.startswith("wraps"):
        return 2
    if isinstance(kind, SeriesMask) and name.startswith("words"):
        return 2 * kind.harmonics
    if isinstance(kind, ExpMask) and name.startswith("table"):
        return kind.entries
    if isinstance(kind, Empty) and name == "mask":
        return kind.places
    if name.startswith("guard"):  # words of 64 bits, by guard
        return max(1, count // (8 * getattr(kind, "count", N)))
    return 1


class Watched(Material):
    """A correlation in a party's hands that notes what is drawn."""

    def __init__(self, inner: Material, kind: Kind, view: View, spoil: Spoil | None):
        self._inner, self.kind, self._view, self._spoil = inner, kind, view, spoil
        self.group = view.correlations
        self.drawn: dict[str, np.ndarray] = {}
        self.masked_by: dict[int, tuple[Any, np.ndarray, bool]] = {}  # what was masked: itself, by what, minus?

    def draw(self, name: str) -> Any:
        share = self._inner.draw(name)
        if self._spoil is not None:
            share = self._spoil(self._view.rank, self.kind, name, share)
        one = self.kind.layout.fields[name]
        self.drawn[name] = np.array(share, dtype=np.uint64)
        self._view.add(f"{type(self.kind).__name__}.{name}", self.drawn[name], one.bits,
                       planes_of(self.kind, name, one.count), group=self.group)
        return share

    def masked(self, name: str, words: Any, constant: int = 0, *, keeps: bool = False) -> Any:
        found = super().masked(name, words, constant, keeps=keeps)
        self.masked_by[id(found)] = (found, self.drawn[name], False)
        return found

    def subtracted(self, name: str, words: Any) -> Any:
        found = super().subtracted(name, words)
        self.masked_by[id(found)] = (found, self.drawn[name], True)
        return found


class Watcher:
    """Stands between a party and its correlations and messages, and notes both in a view."""

    def __init__(self, party: Party, view: View, spoil: Spoil | None = None):
        self._party, self._view, self._spoil = party, view, spoil
        self._recent = view.taken
        self._take, self._open, self._exchange, self._receive = (
            party.take, party.open, party._exchange, party.receive)
        self._theirs: Any = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        party: Any = self._party
        party.take, party.open, party._exchange, party.receive = self.take, self.open, self.exchange, self.receive
        try:
            yield
        finally:
            for name in ("take", "open", "_exchange", "receive"):
                delattr(party, name)

    def take(self, kind: Kind) -> Watched:
        self._view.correlations += 1
        self._view.kinds.add(type(kind))
        watched = Watched(self._take(kind), kind, self._view, self._spoil)
        self._recent.append(watched)
        return watched

    def exchange(self, verb: str, items: Any, mine: Any) -> Any:
        self._theirs = self._exchange(verb, items, mine)
        return self._theirs

    def receive(self, verb: str, count: int) -> Any:
        words = self._receive(verb, count)
        self._view.verbs.add(verb)
        self._view.add(f"{verb}: received", words, 64)
        return words

    def open(self, verb: str, items: Sequence[Any], *, xor: bool = False) -> list[Any]:
        self._view.verbs.update(verb.split("+"))
        opened = self._open(verb, items, xor=xor)
        payload, start = np.array(self._theirs), 0
        for number, ((mine, bits), u) in enumerate(zip(items, opened, strict=True)):
            size = mine.size * -(-bits // 8)
            received, start = wire_words(payload[start : start + size], bits), start + size
            if bits < 64 and (received >> np.uint64(bits)).any():
                raise AssertionError(f"{verb} {number}: bits above the opened {bits} travel")
            group = self._recent[-1].group if self._recent else -1
            name, planes = f"{verb} {number}", max(1, mine.size // N) if verb == "count" else 1
            self._view.add(f"{name}: received", received, bits, planes, group=group)
            self._view.add(f"{name}: opened", u, bits, planes, combined=True, opened=True)
            for guess in self._without_own_mask(mine, bits, np.array(u), xor) if verb not in ALIKE else ():
                self._view.add(f"{name}: without own mask", guess, bits, planes, combined=True)
        assert start == payload.size
        return opened

    def _without_own_mask(self, mine: Any, bits: int, u: np.ndarray, xor: bool) -> Iterator[np.ndarray]:
        """What is left of an opening when the party takes its own part of the mask away."""
        low = np.uint64((1 << bits) - 1)
        for material in self._recent:
            if id(mine) in material.masked_by:
                _, mask, away = material.masked_by[id(mine)]
                yield (u + mask if away else u - mask) & low
                return
        own = [(material, f, material.drawn[f.name])  # masked by hand: any own mask of that size may be the one
               for material in self._recent for f in material.kind.fields()
               if f.name in material.drawn and (f.cache is not None or material is self._recent[-1]) and not f.derived
               and f.xor == xor and f.bits >= bits and f.count % u.size == 0]
        for material, f, words in own:
            for plane in words.reshape(-1, u.size):
                if xor:
                    yield (u ^ plane) & low
                    if f.bits > bits:
                        yield (u ^ (plane >> np.uint64(f.bits - bits))) & low
                else:
                    yield (u - plane if type(material.kind).__name__ == "Relu" else u + plane) & low


@dataclass(frozen=True)
class Input:
    """A secret of `size` elements per sample, each one of `values`: which, two coins per sample say."""

    size: int = 1
    values: tuple[float, ...] = VALUES
    shape: tuple[int, ...] | None = None


def views_of(programs: Sequence[Program] | Program, inputs: Sequence[Input] = (Input(),), *, seed: int = 1,
             trivial: bool = False, spoil: Spoil | None = None) -> tuple[View, View]:
    """Both parties' views of program(session, *shares), or of several programs that run one after the other in one
    world, with the same inputs. With `trivial`, party 0 holds the secrets and party 1 zeros.
    `spoil` changes what is drawn, for controls."""
    logs: tuple[list[Sent], list[Sent]] = ([], [])
    kernels = NumpyKernels(kernels_named("numpy").backend)
    kernels.chunk = 1 << 20  # so that a field is in one piece
    world = World(kernels=kernels, unsafe_seeds=SEEDS, connect=tapped(logs))
    rng, views = np.random.default_rng(seed), (View(0), View(1))
    coins = rng.integers(0, 1 << SECRETS, size=N)
    drawn = []
    for given in inputs:
        which = (coins[:, None] + np.arange(given.size)) % len(given.values)
        words = encode(np.array(given.values)[which], 16).reshape((N, *(given.shape or (given.size,)))
                                                                  if given.size > 1 or given.shape else N)
        drawn.append((words, np.zeros_like(words)) if trivial else split(words, rng))
    for rank, view in enumerate(views):
        view.parts.append(Part("which secret", coins.astype(np.uint64)[None], SECRETS))
        for k, halves in enumerate(drawn):
            if not trivial:
                view.add(f"input {k}", halves[rank], 64)
    name = world.fresh()
    for program in programs if isinstance(programs, list | tuple) else [programs]:

        def body(s: Any, mine: Sequence[np.ndarray], program: Program = program) -> None:
            if not isinstance(s, SecureSession):
                program(s, *(s.accept(m) for m in mine))
                return
            with Watcher(s.party, views[s.party.rank], spoil).watching():
                program(s, *(s.accept(m) for m in mine))

        world.run(body, [h[0] for h in drawn], [h[1] for h in drawn], cache=name)
    for view in views:
        view.close()
    return views
