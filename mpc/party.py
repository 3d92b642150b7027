"""One party's world: who it is, whom it talks to, what it computes with, where its randomness comes from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

from secformer.mpc.dealer.correlations import Correlations, Material
from secformer.mpc.dealer.kinds import CHUNK, Guards, Kind
from secformer.mpc.errors import ProtocolError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.bundles import Item
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.wire import Tag, joint_name
from secformer.mpc.prg import Stream, fresh_seed

Opens = Generator[tuple[str, Sequence[Item]], list[Any], list[Any]]  # a verb: gives what it opens, then its results


class Watcher(Protocol):
    """Who gathers what the guards of openings say (see `ops/guard`)."""

    def see(self, material: Material, u: Any, guards: Guards, shape: tuple[int, ...], name: str) -> None: ...


class Party:
    """Rank, peer, number format, kernels and meter of one party. `begin` binds what belongs to one run.

    chunk   elements of material that are made, sent and used at once: both parties and the plan must have the same
    """

    def __init__(self, rank: int, fixed: FixedPoint, kernels: Kernels, *, private_seed: bytes | None = None,
                 chunk: int = CHUNK):
        self.rank, self.fixed, self.kernels, self.chunk = rank, fixed, kernels, chunk
        self.private = Stream(private_seed or fresh_seed(), "private", kernels=kernels)
        self.meter = Meter()
        self._peer: Channel | None = None
        self._source: Correlations | None = None
        self._step = 0
        self.watch: Watcher | None = None

    def begin(self, peer: Channel, source: Correlations, meter: Meter) -> None:
        """Starts a run: a connected channel, its correlations, its meter."""
        peer.buffer, self.watch = self.kernels.backend.buffer, None
        self._peer, self._source, self.meter, self._step = peer, source, meter, 0

    def end(self) -> None:
        """Ends a run: lets go of its channel and its correlations, and with them of its seed."""
        self._peer = self._source = self.watch = None

    @property
    def peer(self) -> Channel:
        if self._peer is None:
            raise ProtocolError("this party is not in a run: call Party.begin first, or let a World run the program")
        return self._peer

    def take(self, kind: Kind) -> Material:
        """The next correlation of the run."""
        if self._source is None:
            raise ProtocolError("this party is not in a run: call Party.begin first, or let a World run the program")
        return self._source.take(kind)

    def open(self, verb: str, items: Sequence[Item], *, xor: bool = False) -> list[Any]:
        """Opens masked words: sends the low bits of each (words, bits), adds (or xors) the peer's. One round.

        Returns flat uint64 arrays reduced mod 2^bits. What is given must be masked by a fresh uniform mask of
        `bits` bits (or come to be, as `Sealing` says): that is the caller's proof obligation, and nothing else may be
        opened, but for the words of a coin, and tags that the other party can make by itself (see `ops/zero`).
        """
        mine = self.kernels.seal(items)
        with self.kernels.backend.reading(self._exchange(verb, items, mine)) as theirs:
            return self.kernels.unseal(items, mine, theirs, xor)

    def play(self, *verbs: Opens) -> list[list[Any]]:
        """The results of verbs that open what they open in one round."""
        wanted = [next(verb) for verb in verbs]
        opened = iter(self.open(joint_name(name for name, _ in wanted),
                                [item for _, items in wanted for item in items]))
        results = []
        for verb, (_, items) in zip(verbs, wanted, strict=True):
            try:
                verb.send([next(opened) for _ in items])
            except StopIteration as end:
                results.append(end.value)
            else:
                raise ProtocolError("a verb that shares its round opens once")
        return results

    def _exchange(self, verb: str, items: Sequence[Item], payload: Any) -> Any:
        tag = Tag(self._next(), verb, max(bits for _, bits in items), sum(w.size for w, _ in items))
        self.peer.send(tag, self.kernels.backend.outgoing(payload))
        self.meter.sent(payload.size)
        self.meter.round()
        return self.peer.receive(tag, payload.size)

    def see(self, material: Material, u: Any, guards: Guards, shape: tuple[int, ...], name: str = "guard") -> None:
        """Shows an opening's guards, if it has any, to whoever watches. `name` is that of their tables."""
        if guards:
            if self.watch is None:
                raise ProtocolError("an opening has guards and nobody watches: open it in a guarded session")
            self.watch.see(material, u, guards, shape, name)

    def send(self, verb: str, words: Any) -> None:
        """One message of whole words to the peer."""
        payload = self.kernels.pack(words, 64)
        self.peer.send(Tag(self._next(), verb, 64, words.size), self.kernels.backend.outgoing(payload))
        self.meter.sent(payload.size)
        self.meter.round()

    def receive(self, verb: str, count: int) -> Any:
        """One message of whole words from the peer: flat uint64."""
        message = self.peer.receive(Tag(self._next(), verb, 64, count), 8 * count)
        self.meter.round()
        with self.kernels.backend.reading(message) as payload:
            return self.kernels.unpack(payload, count, 64)

    def _next(self) -> int:
        self._step += 1
        return self._step
