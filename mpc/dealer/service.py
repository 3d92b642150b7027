"""The dealer: makes a plan's correlations and streams the corrections to party 1.

It knows both seeds and the plan; it never sees a share or an opened value.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from secformer.mpc.dealer.expand import FieldStreams
from secformer.mpc.dealer.kinds import Kind, WeightMask
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import ProtocolError
from secformer.mpc.kernels import Kernels
from secformer.mpc.net.channel import Channel
from secformer.mpc.prg import Name
from secformer.mpc.ring import word_type

Both = tuple[bytes, bytes]  # seeds of party 0 and of party 1


class Dealer:
    """Holds the two parties' seeds and the standing masks of opened weights.

    seeds  of runs that state none of their own
    """

    def __init__(self, seeds: Both, kernels: Kernels):
        self.seeds, self._kernels = seeds, kernels
        self._standing: dict[int, Any] = {}

    def deal(self, plan: Plan, run: Name, party1: Channel, cache: Name | None = None, *,
             seeds: Both | None = None, cache_seeds: Both | None = None) -> None:
        """Sends the corrections of one run; the channel's capacity bounds how far it runs ahead. `run` names the run's
        streams: use a name once. `cache` names the caches that its products take, which last from run to run.

        seeds, cache_seeds  of this run, and of its caches, where they have some of their own
        """
        own, other = (FieldStreams(seed, run, cache, self._kernels, cache_seed) for seed, cache_seed in zip(
            seeds or self.seeds, cache_seeds or seeds or self.seeds, strict=True))
        for index, kind in enumerate(plan.kinds):
            masks = self._masks(kind, index, own, other)
            if isinstance(kind, WeightMask):
                mask = masks["mask"].reshape(kind.shape)
                self._standing[kind.index] = mask.astype(word_type(kind.width), copy=False)
            values = iter(kind.correlate(masks, self._kernels, self._mask_of))
            for parcel in kind.layout.parcels:
                payload = self._kernels.corrections(own.keys(index, parcel), list(islice(values, len(parcel.fields))),
                                                    parcel.pieces)
                party1.send(parcel.tag(index), self._kernels.backend.outgoing(payload))

    def _mask_of(self, index: int) -> Any:
        if index not in self._standing:
            raise ProtocolError(f"weight {index} was never provisioned with this dealer; provision the model first")
        return self._standing[index]

    def _masks(self, kind: Kind, index: int, own: FieldStreams, other: FieldStreams) -> dict[str, Any]:
        """The values of a correlation's masks, from both parties' streams."""
        found: dict[str, Any] = {}
        for parcel in kind.layout.masks:
            keys = list(zip(own.keys(index, parcel), other.keys(index, parcel), strict=True))
            found.update(zip(parcel.names, self._kernels.combined(keys, parcel.masks), strict=True))
        return found
