"""Bodies between clients and parties: what is packed comes back, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from secformer.mpc.errors import InputError, ProtocolError
from secformer.mpc.meter import Cost
from secformer.roles.messages import (
    ANSWER,
    Answer,
    Half,
    StepRequest,
    pack_answer,
    pack_half,
    unpack_answer,
    unpack_half,
)

ID = "0123456789abcdef" * 2
ROWS, LIMITS = 7, {"columns": 7, "width": 24, "longest": 9, "max_tokens": 40}


def a_half(lengths: list[int], words: bool, width: int = 24) -> Half:
    sizes = np.array(lengths)
    mask = np.arange(max(lengths)) < sizes[:, None]
    share = np.arange(sum(lengths) * ROWS, dtype=np.uint32 if width <= 32 else np.uint64).reshape(-1, ROWS)
    return Half(ID, "m" * 64, sizes, mask, words=share if words else None, seed=None if words else bytes(range(32)))


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), words=st.booleans(),
       width=st.sampled_from([24, 64]))
def test_a_half_comes_back(lengths: list[int], words: bool, width: int) -> None:
    sent = a_half(lengths, words, width)
    came = unpack_half(pack_half(sent), **LIMITS | {"width": width})
    assert (came.request, came.model, came.seed) == (sent.request, sent.model, sent.seed)
    assert np.array_equal(came.lengths, sent.lengths) and np.array_equal(came.mask, sent.mask)
    assert (came.words is None) == (sent.words is None)
    if sent.words is not None and came.words is not None:
        assert np.array_equal(came.words, sent.words) and came.words.dtype == sent.words.dtype
    assert came.shape_digest == sent.shape_digest


def test_halves_agree_on_their_shape_alone() -> None:
    a, b = a_half([3, 4], True), a_half([3, 4], False)
    assert a.shape_digest == b.shape_digest
    assert a.shape_digest != a_half([4, 3], True).shape_digest
    assert a.shape_digest != Half(ID, "other", a.lengths, a.mask, seed=bytes(32)).shape_digest
    masked = a.mask.copy()
    masked[0, 1] = False
    assert a.shape_digest != Half(ID, a.model, a.lengths, masked, seed=bytes(32)).shape_digest


@given(keep=st.integers(0, 10**9), last=st.sampled_from([1, 3]))
def test_a_step_comes_back(keep: int, last: int) -> None:
    plain = a_half([3], False)
    sent = replace(plain, step=StepRequest("ab" * 16, keep, last))
    came = unpack_half(pack_half(sent), **LIMITS)
    assert came.step == sent.step and came.shape_digest == sent.shape_digest != plain.shape_digest
    for change in ({"session": "cd" * 16}, {"keep": keep + 1}, {"last": last + 1}):
        assert replace(sent, step=replace(sent.step, **change)).shape_digest != sent.shape_digest


def body(tensors: dict[str, Any] | None = None, metadata: dict[str, str] | None = None, without: str = "") -> bytes:
    good = {"lengths": np.array([3, 4]), "mask": (np.arange(4) < np.array([[3], [4]])).astype(np.uint8),
            "words": np.zeros((7, ROWS), np.uint32)}
    facts = {"format": "secformer request 1", "request": ID, "model": "m"} | (metadata or {})
    return bytes(save({k: v for k, v in (good | (tensors or {})).items() if k != without}, metadata=facts))


@pytest.mark.parametrize(("bad", "said"), [
    (body(metadata={"format": "secformer request 0"}), "form"), (body(metadata={"request": "x" * 32}), "id"),
    (body(metadata={"request": ID.upper()}), "id"), (body(metadata={"request": ID + "0"}), "id"),
    (body(without="words"), "words or seed"), (body({"seed": np.zeros(32, np.uint8)}), "words or seed"),
    (body(without="mask"), "must hold"), (body({"more": np.zeros(1)}), "must hold"),
    (body({"lengths": np.array([3.0, 4.0])}), "whole numbers"), (body({"lengths": np.array([], np.int64)}), "whole"),
    (body({"lengths": np.array([[3, 4]])}), "whole"), (body({"lengths": np.array([0, 4])}), "1 to 9"),
    (body({"lengths": np.array([3, 10])}), "1 to 9"), (body({"lengths": np.full(11, 4)}), "at most 40"),
    (body({"mask": np.ones((2, 5), np.uint8)}), "mask"), (body({"mask": np.full((2, 4), 2, np.uint8)}), "mask"),
    (body({"mask": np.ones((2, 4), np.uint8)}), "beyond"), (body({"mask": np.zeros((2, 4), np.uint8)}), "none"),
    (body({"words": np.zeros((7, ROWS), np.uint64)}), "words must be"),
    (body({"words": np.zeros((6, ROWS), np.uint32)}), "words must be"),
    (body({"seed": np.zeros(31, np.uint8)}, without="words"), "seed must have"), (b"", "safetensors"),
    (body(metadata={"session": "x"}), "session id"), (body(metadata={"session": ID}), "in whole numbers"),
    (body(metadata={"session": ID, "keep": "-1", "last": "1"}), "in whole numbers"),
    (body(metadata={"session": ID, "keep": "1", "last": "9" * 99}), "in whole numbers"),
    (body(metadata={"session": ID, "keep": "1", "last": "1"}), "one text, .* got 2 texts and 1 logits"),
    (b"\0" * 8, "safetensors"), (b"\xff" * 64, "safetensors"), (body()[:-1], "safetensors"),
    (body() + b"x", "safetensors"),
    ((8).to_bytes(8, "little") + b"[1, 2]  ", "safetensors"),
    ((100_000).to_bytes(8, "little") + b"[" * 100_000, "safetensors"),
])
def test_anything_else_is_refused(bad: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        unpack_half(bad, **LIMITS)


def test_an_answer_comes_back() -> None:
    cost = Cost("total", seconds=1.5, bytes=7, children={"a": Cost("a", rounds=2)})
    sent = Answer({"logits": np.arange(6, dtype=np.uint64).reshape(2, 3)}, 16, cost)
    came = unpack_answer(pack_answer(sent, ID), ID)
    assert came.frac == 16 and came.cost == cost
    assert np.array_equal(came.words["logits"], sent.words["logits"])


@pytest.mark.parametrize(("tensors", "metadata"), [
    ({}, {"request": "other"}), ({"logits": np.zeros(2)}, {}), ({}, {"cost": "{}"}), ({}, {"cost": "no"}),
    ({}, {"frac": "x"}), ({}, {"format": "secformer request 1"}),
    ({}, {"cost": json.dumps(Cost("x").as_dict() | {"bytes": 1e400})}),
])
def test_another_answer_is_refused(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    facts = {"format": ANSWER, "request": ID, "frac": "16", "cost": json.dumps(Cost("x").as_dict())} | metadata
    with pytest.raises(ProtocolError):
        unpack_answer(bytes(save({"logits": np.zeros(2, np.uint64)} | tensors, metadata=facts)), ID)


def test_costs_of_an_answer_that_nest_too_deeply_are_refused() -> None:
    """Found by fuzzing: a RecursionError reached the client."""
    body = save({"logits": np.zeros(1, np.uint64)}, metadata={
        "format": ANSWER, "request": ID, "frac": "16", "cost": '{"children": ' + "[" * 100_000})
    with pytest.raises(ProtocolError, match="cannot be read"):
        unpack_answer(body, ID)
