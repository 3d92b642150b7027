"""Halves of requests, at a party, and halves of answers, at a client."""

from __future__ import annotations

import numpy as np

from fuzz.mutators import tensors
from fuzz.target import Target, require, stateless
from secformer.mpc.errors import ProtocolError
from secformer.roles.halves import joined
from secformer.roles.messages import Half, pack_answer, pack_half, unpack_answer, unpack_half

COLUMNS, WIDTH, LONGEST, MOST_TOKENS = 6, 24, 8, 32
REQUEST = "ab" * 16
READS = ("secformer/roles/messages.py",)


def unpacked(body: bytes) -> Half:
    return unpack_half(body, columns=COLUMNS, width=WIDTH, longest=LONGEST, max_tokens=MOST_TOKENS)


def halves(data: bytes) -> None:
    half = unpacked(data)
    back = unpacked(pack_half(half))
    require((back.request, back.model, back.seed, back.step) == (half.request, half.model, half.seed, half.step)
            and np.array_equal(back.lengths, half.lengths) and np.array_equal(back.mask, half.mask)
            and (back.words is half.words is None or np.array_equal(back.words, half.words)), "a half has one meaning")
    require(back.shape_digest == half.shape_digest, "both halves say the same")
    require(half.mask.shape == (half.lengths.size, int(half.lengths.max())) and half.mask.size <= MOST_TOKENS, "limits")


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
    Target("halves", READS, stateless(halves), tensors()),
    Target("answers", (*READS, "secformer/roles/halves.py", "mpc/meter.py"), stateless(answers), tensors()),
)
