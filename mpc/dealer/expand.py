"""A party's side of a correlation, expanded from its seed: each field is drawn once."""

from __future__ import annotations

from typing import Any

from secformer.mpc.dealer.correlations import Material
from secformer.mpc.dealer.kinds import Field, Kind, Parcel
from secformer.mpc.errors import ProtocolError, ReusedRandomness
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import Masked, Sealing
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import Channel
from secformer.mpc.prg import Name, Stream, Streams, spelt


class FieldStreams:
    """A party's streams of the fields of one run: of its own fields, and of the caches that it takes."""

    def __init__(self, seed: bytes, run: Name, cache: Name | None, kernels: Kernels, cache_seed: bytes | None = None):
        self._own = Streams(seed, "run", run, kernels=kernels)
        self._caches = None if cache is None else Streams(cache_seed or seed, "cache", cache, kernels=kernels)

    def stream(self, index: int, field: Field) -> Stream:
        """The stream of a field of correlation number `index`. Raises ProtocolError for a cache in a run that names
        none."""
        return self._own.stream(index, field.name) if field.cache is None else self._of_caches(field.cache).stream(
            field.cache)

    def keys(self, index: int, parcel: Parcel) -> list[bytes]:
        """The keys of the streams of a parcel's fields, as `stream`."""
        if (cache := parcel.fields[0].cache) is not None:
            return self._of_caches(cache).keys(b"", [spelt(cache)])
        return self._own.keys(spelt(index), parcel.spelt)

    def _of_caches(self, cache: int) -> Streams:
        if self._caches is None:
            raise ProtocolError(f"this run takes cache {cache} and names no caches; state the name of the session "
                                f"whose caches they are")
        return self._caches


class Expansion(Material):
    """Correlation number `index` of a run, whose fields are streams; with a dealer, derived fields are what it sends.
    Fields of one parcel are expanded or received together, when the first of them is drawn."""

    def __init__(self, kind: Kind, index: int, streams: FieldStreams, dealer: Channel | None, kernels: Kernels,
                 meter: Meter):
        self.kind, self._index, self._streams, self._dealer = kind, index, streams, dealer
        self._fields = dict(kind.layout.fields)
        self._found: dict[str, Any] = {}  # fields that came with another and were not drawn yet
        self._kernels, self._meter = kernels, meter

    def draw(self, name: str) -> Any:
        field = self._fields.pop(name, None)
        if field is None:
            raise ReusedRandomness(
                f"{name} of {self.kind!r} was drawn before or does not exist; a mask serves once: ask for a new "
                f"correlation"
            )
        if name not in self._found:
            with self._meter.offline():
                self._open(field)
        return self._found.pop(name)

    def _open(self, field: Field) -> None:
        """This party's shares of all fields of a field's parcel."""
        parcel = self.kind.layout.parcel[field.name]
        if self._dealer is not None and field.derived:
            self._meter.dealt(parcel.nbytes)
            message = self._dealer.receive(parcel.tag(self._index), parcel.nbytes)
            with self._kernels.backend.reading(message) as payload:
                shares = self._kernels.unpacked(payload, parcel.pieces)
        elif self._kernels.fuses and not field.derived:  # others may be sealed instead
            self._found[field.name] = self._streams.stream(self._index, field).words(field.count, field.bits)
            return
        else:
            shares = self._kernels.shares(self._streams.keys(self._index, parcel), parcel.pieces)
        self._found.update(zip(parcel.names, shares, strict=True))

    def masked(self, name: str, words: Any, constant: int = 0, *, keeps: bool = False) -> Masked | Sealing:
        """Where kernels fuse, sealed when it is opened; elsewhere expanding stays offline work that nobody waits
        for."""
        field = self._fuses(name)
        if field is None:
            return super().masked(name, self._kernels.plain(words), constant)
        return self._streams.stream(self._index, field).sealing(words, field.bits, constant, keeps=keeps)

    def subtracted(self, name: str, words: Any) -> Masked | Sealing:
        """As `masked`."""
        field = self._fuses(name)
        if field is None:
            return super().subtracted(name, self._kernels.plain(words))
        return self._streams.stream(self._index, field).sealing(words, field.bits, away=True, keeps=True)

    def _fuses(self, name: str) -> Field | None:
        """The mask of that name, burnt, where it is better expanded into the sum that it masks."""
        field = self._fields.get(name)
        return self._fields.pop(name) if self._kernels.fuses and field is not None and not field.derived else None
