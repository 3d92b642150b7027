"""Who attends to what in a decoder: the seam between a layer and the keys that its queries meet.

A layer computes queries, keys and values of the tokens that it is given. An `Attending` knows where these tokens stand
and which keys there are, and answers with the attention's result. `Causal` runs whole texts; another may keep the keys
of earlier tokens.

B texts, N tokens packed without padding, H heads of queries, G heads of keys, R = H / G, D entries of a head.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.families.blocks import Forward, attending
from secformer.models.families.local import Meeting, alone_as_mean
from secformer.mpc.errors import InputError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site


class Attending(Protocol):
    """Attention of the tokens that a program is given, N of them.

    positions  (N,): where each token stands in its text, from 0
    """

    @property
    def positions(self) -> np.ndarray: ...

    def __call__(self, s: Session, q: Share, k: Share, v: Share, f: Forward, at: Site, layer: int,
                 reach: int | None) -> Share:
        """softmax(q k^T) v over the keys that each token may meet: (N, H D).

        q (N, H, D), with the scale of scores in it, k, v (N, G, D) of layer number `layer`, each settled or pending in
        whole words. `at` has the ranges of the layer's softmax. A query meets its own token and at most `reach`
        before it; None: all before it.
        """
        ...


def prefix_names(i: int) -> tuple[str, str]:
    """The names of the tensors that hold keys and values (P, G D) of a public prefix in layer i."""
    return f"prefix.{i}.keys", f"prefix.{i}.values"


class Causal:
    """Attention within whole texts: each token meets itself and the attended tokens before it, and those of a public
    prefix of `prefix` tokens, if there is one.

    A token before which nothing is attended to, such as padding on the left, gets the mean of its text's values, as in
    `transformers`. Queries of R heads that share keys are rows of one product, so keys are opened once.
    """

    def __init__(self, batch: Batch, prefix: int = 0):
        if prefix and not batch.mask[batch.own].all():
            raise InputError("texts behind a public prefix must be attended to whole; leave padding out")
        self.batch, self.prefix = batch, prefix
        self._meetings: dict[int | None, Meeting] = {}

    @cached_property
    def positions(self) -> np.ndarray:
        """(N,)"""
        return self.batch.positions + self.prefix

    def __call__(self, s: Session, q: Share, k: Share, v: Share, f: Forward, at: Site, layer: int,
                 reach: int | None) -> Share:
        (n, heads, size), groups = q.shape, k.shape[1]
        meeting = self._meeting(reach, size)
        queries = meeting.of_queries(q.reshape(n, heads * size), heads, groups)      # (B, G n, R w, D)
        keys, values = (meeting.of_keys(self._behind(s, x.reshape(n, groups * size), f, name), groups)
                        for x, name in zip((k, v), prefix_names(layer), strict=True))
        with s.scope("linear"):
            scores = s.matmul(queries, keys.swapaxes(-1, -2), magnitude=attending(s, f, at))
        with s.scope("softmax"):
            context = f.recipe.softmax(s, scores, values, meeting.real(heads, groups), at)
        repeated = s.broadcast_to(v.reshape(n, groups, 1, size), (n, groups, heads // groups, size))
        return alone_as_mean(s, meeting.joined(context, heads, groups), repeated.reshape(n, heads * size), meeting,
                             self.batch)

    def _behind(self, s: Session, x: Share, f: Forward, name: str) -> Share:
        """Keys or values (N, G D), behind those of the prefix: (P + N, G D)."""
        if not self.prefix:
            return x
        if x.interval is not None:
            (x,) = s.settle(x)  # checked here: the prefix need not lie where texts do
        return s.concatenate([s.held(f.parameters.matrix(name)), x])

    def _meeting(self, reach: int | None, size: int) -> Meeting:
        """Which keys meet in layers of this reach: found once."""
        if reach not in self._meetings:
            longest = self.batch.longest
            met = Meeting.within(self.batch, longest if reach is None else min(reach, longest), size, causal=True)
            self._meetings[reach] = met.behind(self.prefix, self.batch, reach) if self.prefix else met
        return self._meetings[reach]
