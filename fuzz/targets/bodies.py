"""Halves of requests, at a party, and halves of answers, at a client."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fuzz.mutators import tensors
from fuzz.target import Target, require, stateless
from secformer.models.data.inputs import TokenInputs
from secformer.mpc.backend import choose_backend
from secformer.mpc.errors import ProtocolError
from secformer.mpc.kernels import NumpyKernels
from secformer.roles.halves import joined
from secformer.roles.messages import Half, pack_answer, pack_half, unpack_answer, unpack_half

MOST_TOKENS = 32
INPUTS = TokenInputs(words=40, segments=2, longest=8, hidden=6)
KERNELS = NumpyKernels(choose_backend("numpy"))
REQUEST = "ab" * 16
READS = ("secformer/roles/messages.py",)


def halves(*, private: bool) -> Callable[[bytes], None]:
    """A reader of halves, where the parties hold the tables (`private`) or clients do."""
    def read(data: bytes) -> None:
        for rank in (0, 1):
            half = unpacked(data, private, rank)
            _same(half, unpacked(pack_half(half), private, rank))
            require(half.mask.shape == (half.lengths.size, int(half.lengths.max())), "a mask fits its lengths")
            require(half.mask.size <= MOST_TOKENS, "no more positions than allowed")
            if half.keys is not None:
                rows = INPUTS.rows(half.keys, KERNELS)
                require(rows.shape == (half.lengths.sum(), INPUTS.columns), "keys that are accepted give rows")

    return read


def unpacked(body: bytes, private: bool, rank: int) -> Half:
    return unpack_half(body, inputs=INPUTS, private=private, rank=rank, max_tokens=MOST_TOKENS)


def _same(half: Half, back: Half) -> None:
    require((back.request, back.model, back.seed, back.step) == (half.request, half.model, half.seed, half.step)
            and all(np.array_equal(a, b) for a, b in zip(_arrays(half), _arrays(back), strict=True)),
            "a half has one meaning")
    require(back.shape_digest == half.shape_digest, "both halves say the same")


def _arrays(half: Half) -> list[np.ndarray]:
    found = [half.lengths, half.mask] if half.words is None else [half.lengths, half.mask, half.words]
    if half.keys is None:
        return found
    points = half.keys.points
    return [*found, half.keys.segments, points.salt, points.seeds, points.corrections, points.turns, points.finals]


def answers(data: bytes) -> None:
    answer = unpack_answer(data, REQUEST)
    back = unpack_answer(pack_answer(answer, REQUEST), REQUEST)
    require(back.frac == answer.frac and back.cost == answer.cost and back.words.keys() == answer.words.keys(),
            "an answer has one meaning")
    str(answer.cost.merged(back.cost, parallel=True))
    try:
        joined((answer, back), tuple(answer.words), 16)
        joined((answer, back), ("logits",), 16)
    except ProtocolError:
        pass


TARGETS = (
    Target("halves", READS, stateless(halves(private=False)), tensors()),
    Target("keys", (*READS, "models/data/inputs.py", "mpc/kernels/points.py"), stateless(halves(private=True)),
           tensors()),
    Target("answers", (*READS, "secformer/roles/halves.py", "mpc/meter.py"), stateless(answers), tensors()),
)
