"""What the engine's tests share: worlds, hand-made parties, wire taps and a little statistics."""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from secformer.mpc.backend import Backend
from secformer.mpc.dealer.kinds import Field, Kind
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.source import Source
from secformer.mpc.fixed import FixedPoint, decode, encode
from secformer.mpc.kernels import Kernels, kernels_for
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import Channel, local_pair
from secformer.mpc.net.tcp import UnsafePlainTCP, unsafe_connect, unsafe_listen
from secformer.mpc.net.wire import Tag
from secformer.mpc.party import Party
from secformer.mpc.prg import Stream
from secformer.mpc.rounds import Steps
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.sessions.secure import SecureSession
from secformer.mpc.simulate import Outcome, World

KERNELS = ["numpy", *(["numba"] if importlib.util.find_spec("numba") else [])]
SEEDS = (bytes(range(32)), bytes(range(32, 64)))
F16 = FixedPoint()
ULP = 2.0**-16


def examples(count: int) -> Any:
    """Hypothesis settings: so many examples, no clock."""
    return settings(deadline=None, max_examples=count, suppress_health_check=list(HealthCheck))


@cache
def kernels_named(name: str) -> Kernels:
    return kernels_for(Backend("numpy", np, 1), compiled=name == "numba")


# ---- values and shares ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """An input given as words: mod 2^width, with `frac` fractional bits."""

    words: np.ndarray
    frac: int = 16
    width: int = 64


@dataclass(frozen=True)
class Raw:
    """A result as both parties hold it together: words mod 2^width."""

    words: np.ndarray
    frac: int
    width: int

    @property
    def value(self) -> np.ndarray:
        return decode(self.words, self.frac, self.width)


def split(words: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform additive shares of the words."""
    words = np.asarray(words, dtype=np.uint64)
    mask = rng.integers(0, 2**64, size=words.shape, dtype=np.uint64)
    return mask, words - mask


def with_junk(given: Words, rng: np.random.Generator) -> np.ndarray:
    """The words with random bits above their width: nobody may rely on those."""
    if given.width == 64:
        return given.words
    junk = rng.integers(0, 2**64, size=given.words.shape, dtype=np.uint64) << np.uint64(given.width)
    return reduced(given.words, given.width) | junk


def words_of(values: Any) -> np.ndarray:
    """Python integers of any size, as words mod 2^64."""
    flat = [int(v) % 2**64 for v in np.asarray(values, dtype=object).reshape(-1)]
    return np.array(flat, dtype=np.uint64).reshape(np.shape(values))


def integers(words: np.ndarray, bits: int = 64) -> np.ndarray:
    """Words mod 2^bits as signed Python integers (object array)."""
    half, full = 1 << (bits - 1), 1 << bits
    flat = [((int(w) + half) % full) - half for w in np.asarray(words).reshape(-1)]
    return np.array(flat, dtype=object).reshape(np.shape(words))


def reduced(words: np.ndarray, bits: int) -> np.ndarray:
    return np.asarray(words) & np.uint64((1 << bits) - 1)


# ---- running programs -----------------------------------------------------------------------------------------------


def run(
    program: Callable[..., Any],
    *values: Any,
    world: World | None = None,
    raw: bool = False,
    seed: int = 0,
    trivial: bool = False,
    **settings: Any,
) -> tuple[list[Any], Outcome]:
    """Runs program(session, *shares) at two parties on fresh shares of the values (float arrays or `Words`).

    Returns what the client decodes from the parties' words (with `raw`, the shares themselves, combined), and the
    outcome. With `trivial`, party 0 holds the values and party 1 holds zeros, as for public constants.
    """
    world = world or World(**{"kernels": kernels_named(KERNELS[-1]), **settings})
    rng = np.random.default_rng(seed)
    inputs = [
        v if isinstance(v, Words) else Words(encode(np.asarray(v), world.fixed.frac), world.fixed.frac) for v in values
    ]
    halves = [(w, np.zeros_like(w)) if trivial else split(w, rng) for w in (with_junk(v, rng) for v in inputs)]

    def both(s: Any, mine: Sequence[np.ndarray]) -> Any:
        shares = [s.accept(m, frac=v.frac, width=v.width) for m, v in zip(mine, inputs, strict=True)]
        out = program(s, *shares)
        out = out if isinstance(out, list | tuple) else [out]
        return [(o.data, o.frac, o.width) if raw else s.reveal(o, CLIENT) for o in out]

    outcome = world.run(both, [h[0] for h in halves], [h[1] for h in halves])
    if raw:
        results = [Raw(reduced(a + b, w), f, w) for (a, f, w), (b, _, _) in zip(*outcome.results, strict=True)]
    else:
        results = [decode(a + b, world.fixed.frac) for a, b in zip(*outcome.results, strict=True)]
    return results, outcome


def compute(program: Callable[..., Any], *values: Any, **settings: Any) -> Any:
    """The single result of `run`."""
    (result,), _ = run(program, *values, **settings)
    return result


@dataclass
class Ending:
    """How a party's program ended."""

    result: Any = None
    error: BaseException | None = None


def duo(
    programs: Sequence[Callable[[Any], Any]],
    *,
    ends: tuple[Channel, Channel] | None = None,
    deadline: float = 5.0,
    fixed: FixedPoint = F16,
) -> list[Ending]:
    """Two parties that may run different programs, each with the plan of its own; the dealer follows party 0's.

    A party that fails tells its peer so, as a process would; nobody else interferes.
    """
    ends = ends or local_pair("party 0", "party 1", deadline=deadline)
    k = kernels_named(KERNELS[-1])
    plans = [PlanRecorder(fixed).record(p) for p in programs]
    dealer_end, feed = local_pair("the dealer", "party 1", deadline=deadline)
    endings = [Ending(), Ending()]

    def body(rank: int) -> None:
        session = SecureSession(Party(rank, fixed, k))
        source = Source(SEEDS[rank], 0, plans[rank], feed if rank else None, k, Meter())
        session.party.begin(ends[rank], source, Meter())
        try:
            endings[rank].result = programs[rank](session)
        except BaseException as error:
            endings[rank].error = error
            ends[rank].abort(f"party {rank}: {error}")

    Dealer(SEEDS, k).deal(plans[0], 0, dealer_end)
    threads = [threading.Thread(target=body, args=(rank,)) for rank in (0, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for end in ends:
        end.close()
    return endings


def alone(session: Any, steps: Steps) -> Any:
    """The result of steps that run beside nothing."""
    with session.beside(steps) as found:
        pass
    return found.result


def whether_zero(session: Any, x: Any) -> Steps:
    """The steps of a test whether x is zero, with a coin of its own."""
    coin = session._tossed()
    yield
    return (yield from session.whether_zero(x, coin))


def rank_of(session: Any) -> int | None:
    """The party's rank; None in the recorder and the twin."""
    return session.party.rank if isinstance(session, SecureSession) else None


# ---- channels -------------------------------------------------------------------------------------------------------


def tcp_pair(a: str, b: str, *, deadline: float = 20.0) -> tuple[Channel, Channel]:
    """Two connected ends over loopback: the first is held by `a`, the second by `b`."""
    port, accept = unsafe_listen("127.0.0.1", 0, b, deadline=deadline)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(accept)
        second = unsafe_connect("127.0.0.1", port, a, deadline=deadline)
        return kept(first.result()), kept(second)


OPEN: list[UnsafePlainTCP] = []


def kept(channel: UnsafePlainTCP) -> UnsafePlainTCP:
    """Remembers a TCP channel until its test is over."""
    OPEN.append(channel)
    return channel


def close_sockets() -> None:
    while OPEN:
        OPEN.pop()._stream.close()


def quick_local_pair(a: str, b: str, *, deadline: float = 20.0) -> tuple[Channel, Channel]:
    return local_pair(a, b, deadline=deadline)


PAIRS: dict[str, Callable[..., tuple[Channel, Channel]]] = {"local": quick_local_pair, "tcp": tcp_pair}
Sent = tuple[Tag, np.ndarray]


class Tap(Channel):
    """A channel that keeps a copy of what is sent."""

    def __init__(self, inner: Channel, log: list[Sent]):
        super().__init__(inner.peer, inner.deadline)
        self.inner, self.log = inner, log

    def send(self, tag: Tag, payload: Any) -> None:
        self.log.append((tag, np.array(payload, copy=True)))
        self.inner.send(tag, payload)

    def receive(self, tag: Tag, nbytes: int) -> Any:
        return self.inner.receive(tag, nbytes)

    def abort(self, reason: str) -> None:
        self.inner.abort(reason)

    def close(self) -> None:
        self.inner.close()


def tapped(logs: tuple[list[Sent], list[Sent]], pair: Callable[..., Any] = quick_local_pair) -> Any:
    """A `connect` for World that keeps what each party sends."""

    def connect(a: str, b: str) -> tuple[Channel, Channel]:
        first, second = pair(a, b)
        return Tap(first, logs[0]), Tap(second, logs[1])

    return connect


class Sink(Channel):
    """A dealer's outgoing end that only keeps the corrections."""

    def __init__(self) -> None:
        super().__init__("nobody")
        self.log: list[Sent] = []

    def send(self, tag: Tag, payload: Any) -> None:
        self.log.append((tag, np.array(payload, copy=True)))

    def fields(self, kinds: Sequence[Kind]) -> list[Sent]:
        """What was sent for these kinds, field by field."""
        found, messages = [], iter(self.log)
        for index, kind in enumerate(kinds):
            for parcel in kind.parcels():
                payload, start = next(messages)[1], 0
                for f in parcel.fields:
                    found.append((Tag(index, f.name, f.bits, f.count), payload[start : start + f.piece.nbytes]))
                    start += f.piece.nbytes
        return found

    def receive(self, tag: Tag, nbytes: int) -> Any:
        raise AssertionError("a dealer receives nothing")

    def abort(self, reason: str) -> None: ...

    def close(self) -> None: ...


# ---- correlations ---------------------------------------------------------------------------------------------------


def dealt(
    kinds: Sequence[Kind], name: str = KERNELS[-1], *, serial: int = 0, seeds: tuple[bytes, bytes] = SEEDS
) -> tuple[Source, Source]:
    """Both parties' sources of a plan, the corrections already on their way."""
    k, plan = kernels_named(name), Plan(tuple(kinds))
    dealer_end, feed = local_pair("the dealer", "party 1", capacity=1 << 31, deadline=5.0)
    Dealer(seeds, k).deal(plan, serial, dealer_end)
    return (Source(seeds[0], serial, plan, None, k, Meter()), Source(seeds[1], serial, plan, feed, k, Meter()))


def combined(sources: tuple[Source, Source], kind: Kind) -> dict[str, np.ndarray]:
    """Takes a correlation at both parties, draws every field and combines the shares."""
    materials = [source.take(kind) for source in sources]
    values = {}
    for field in kind.fields():
        a, b = (m.draw(field.name) for m in materials)
        values[field.name] = combine(field, a, b)
    return values


def combine(field: Field, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    assert a.shape == b.shape == (field.count,)
    if field.xor:
        return a ^ b
    if field.carries:
        return a + b
    return reduced(a + b, field.bits)


def wire_words(payload: np.ndarray, bits: int) -> np.ndarray:
    """A payload's words with every bit that travelled: nothing is masked off, unlike `unpack`."""
    nbytes = -(-bits // 8)
    count, start, shift = payload.size // nbytes, 0, 0
    words = np.zeros(count, dtype=np.uint64)
    for width in (8, 4, 2, 1):
        if nbytes & width:
            plane = payload[start : start + count * width].reshape(count, width)
            for i in range(width):
                words |= plane[:, i].astype(np.uint64) << np.uint64(shift + 8 * i)
            start, shift = start + count * width, shift + 8 * width
    return words


# ---- statistics -----------------------------------------------------------------------------------------------------


def chi_square_fits(observed: np.ndarray, bins: int) -> bool:
    """Whether values below `bins` look uniform: the statistic within about six standard deviations of its mean."""
    if observed.size < 5 * bins:
        raise ValueError(f"{observed.size} samples say nothing about {bins} bins")
    counts = np.bincount(observed.reshape(-1).astype(np.int64), minlength=bins)
    expected = observed.size / bins
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = bins - 1
    return bool(counts.size == bins and statistic < freedom + 6.0 * math.sqrt(2.0 * freedom) + 12.0)


def looks_uniform(words: np.ndarray, bits: int) -> bool:
    """Whether words look uniform below 2^bits: every byte, and the odd bits at the top."""
    words = np.asarray(words, dtype=np.uint64).reshape(-1)
    if bits < 64 and words.size and int(words.max()) >> bits:
        return False
    for low in range(0, bits, 8):
        have = min(8, bits - low)
        if not chi_square_fits((words >> np.uint64(low)) & np.uint64((1 << have) - 1), 1 << have):
            return False
    return True


def fix_private(world: World, seed: bytes) -> World:
    """Gives both parties fixed private streams, for repeatable tests only."""
    for rank, session in enumerate(world.parties):
        session.party.private = Stream(seed, "private", rank)
    return world
