"""The dealer: makes a plan's correlations and streams the corrections to party 1.

It knows both seeds and the plan; it never sees a share or an opened value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from secformer.mpc.dealer.kinds import Field, Kind, WeightMask
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.source import field_stream
from secformer.mpc.errors import ProtocolError
from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.words import Mask
from secformer.mpc.net.channel import Channel
from secformer.mpc.prg import Name, Stream
from secformer.mpc.ring import word_type


class Dealer:
    """Holds the two parties' seeds and the standing masks of opened weights."""

    def __init__(self, seeds: tuple[bytes, bytes], kernels: Kernels):
        self.seeds, self._kernels = seeds, kernels
        self._standing: dict[int, Any] = {}

    def deal(self, plan: Plan, run: Name, party1: Channel, cache: Name | None = None) -> None:
        """Sends the corrections of one run; the channel's capacity bounds how far it runs ahead. `run` names the run's
        streams: use a name once. `cache` names the caches that its products take, which last from run to run."""
        def stream(rank: int, index: int, field: Field) -> Stream:
            return field_stream(self.seeds[rank], run, cache, index, field, self._kernels)

        for index, kind in enumerate(plan.kinds):
            masks = self._masks(kind, partial(stream, index=index))
            if isinstance(kind, WeightMask):
                mask = masks["mask"].reshape(kind.shape)
                self._standing[kind.index] = mask.astype(word_type(kind.width), copy=False)
            values = iter(kind.correlate(masks, self._kernels, self._mask_of))
            for parcel in kind.parcels():
                streams = [stream(0, index, field) for field in parcel.fields]
                payload = Stream.corrections(streams, list(islice(values, len(streams))), parcel.pieces)
                party1.send(parcel.tag(index), self._kernels.backend.outgoing(payload))

    def _masks(self, kind: Kind, stream: Callable[..., Stream]) -> dict[str, Any]:
        """The values of a correlation's masks, from its streams by rank and field."""
        fields = [f for f in kind.fields() if not f.derived]
        streams = [(stream(0, field=f), stream(1, field=f)) for f in fields]
        found = Stream.combined(streams, [Mask(f.count, f.bits, f.xor, f.carries) for f in fields])
        return {f.name: value for f, value in zip(fields, found, strict=True)}

    def _mask_of(self, index: int) -> Any:
        if index not in self._standing:
            raise ProtocolError(f"weight {index} was never provisioned with this dealer; provision the model first")
        return self._standing[index]
