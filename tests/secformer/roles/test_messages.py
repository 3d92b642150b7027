"""Bodies between clients and parties: what is packed comes back, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from secformer.models.data.batch import Batch, Row
from secformer.models.data.inputs import TokenInputs
from secformer.mpc.backend import choose_backend
from secformer.mpc.errors import InputError, ProtocolError
from secformer.mpc.kernels import NumpyKernels
from secformer.mpc.meter import Cost
from secformer.roles.messages import (
    ANSWER,
    Answer,
    Half,
    StepRequest,
    most_bytes,
    pack_answer,
    pack_half,
    unpack_answer,
    unpack_half,
)

ID = "0123456789abcdef" * 2
ROWS = 7
INPUTS = TokenInputs(40, 2, 9, ROWS)
LIMITS: dict[str, Any] = {"inputs": INPUTS, "private": False, "rank": 0, "max_tokens": 40}
PRIVATE = LIMITS | {"private": True}


def a_half(lengths: list[int], words: bool) -> Half:
    sizes = np.array(lengths)
    mask = np.arange(max(lengths)) < sizes[:, None]
    share = np.arange(sum(lengths) * ROWS, dtype=np.uint64).reshape(-1, ROWS)
    return Half(ID, "m" * 64, sizes, mask, words=share if words else None, seed=None if words else bytes(range(32)))


def key_halves(lengths: list[int], inputs: TokenInputs = INPUTS, seed: int = 0) -> tuple[Half, Half]:
    ids = [np.arange(n) % inputs.words for n in lengths]
    batch = Batch(tuple(Row(i, np.zeros(len(i), np.int64), np.ones(len(i), np.int64)) for i in ids))
    first, second = (Half(ID, "m" * 64, batch.lengths, batch.mask, keys=keys)
                     for keys in inputs.keys(batch, bytes([seed]) * 32))
    return first, second


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), segments=st.integers(0, 3),
       words=st.sampled_from([1, 16, 17, 300]))
def test_halves_with_keys_come_back(lengths: list[int], segments: int, words: int) -> None:
    """Each party expands what came to its share of the rows; a body is not longer than bodies may be."""
    inputs, total = TokenInputs(words, segments, 9, ROWS), 0
    kernels = NumpyKernels(choose_backend("numpy"))
    for rank, sent in enumerate(key_halves(lengths, inputs)):
        body = pack_half(sent)
        assert len(body) <= most_bytes(inputs, True, sum(lengths) + 27)
        came = unpack_half(body, **PRIVATE | {"inputs": inputs, "rank": rank})
        assert came.keys is not None and came.keys.points.rank == rank and (came.words, came.seed) == (None, None)
        assert came.shape_digest == sent.shape_digest
        total = total + inputs.rows(came.keys, kernels)
    assert isinstance(total, np.ndarray) and (total.sum(axis=1) == 1 + bool(segments)).all() and total.max() == 1


def test_what_both_halves_must_have_of_keys_is_in_the_digest() -> None:
    """All but the seeds and the segments: halves of two requests, or of other corrections, are told apart."""
    first, second = key_halves([3, 2])
    assert first.shape_digest == second.shape_digest != key_halves([3, 2], seed=1)[1].shape_digest
    assert first.keys is not None
    for name in ("salt", "corrections", "turns", "finals"):
        other = getattr(first.keys.points, name).copy()
        other.reshape(-1)[-1] ^= 1
        changed = replace(first, keys=replace(first.keys, points=replace(first.keys.points, **{name: other})))
        assert changed.shape_digest != first.shape_digest


def test_the_bodies_of_a_real_vocabulary_are_short() -> None:
    inputs = TokenInputs(30_522, 2, 512, 768)
    for half in key_halves([128], inputs):
        body = pack_half(half)
        assert len(body) < 128 * 500 <= 64_000 and len(body) <= most_bytes(inputs, True, 128) < 64_000


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), words=st.booleans())
def test_a_half_comes_back(lengths: list[int], words: bool) -> None:
    sent = a_half(lengths, words)
    came = unpack_half(pack_half(sent), **LIMITS)
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
            "words": np.zeros((7, ROWS), np.uint64)}
    facts = {"format": "secformer request 2", "request": ID, "model": "m"} | (metadata or {})
    return bytes(save({k: v for k, v in (good | (tensors or {})).items() if k != without}, metadata=facts))


@pytest.mark.parametrize(("bad", "said"), [
    (body(metadata={"format": "secformer request 0"}), "form"),
    (body(metadata={"format": "secformer request 1", "version": "9.8.7"}),
     r"'secformer request 1', of version 9\.8\.7, but version .* here reads 'secformer request 2'; install the same"),
    (body(metadata={"request": "x" * 32}), "id"),
    (body(metadata={"request": ID.upper()}), "id"), (body(metadata={"request": ID + "0"}), "id"),
    (body(without="words"), "words or seed"), (body({"seed": np.zeros(32, np.uint8)}), "words or seed"),
    (body(without="mask"), "must hold"), (body({"more": np.zeros(1)}), "must hold"),
    (body({"lengths": np.array([3.0, 4.0])}), "whole numbers"), (body({"lengths": np.array([], np.int64)}), "whole"),
    (body({"lengths": np.array([[3, 4]])}), "whole"), (body({"lengths": np.array([0, 4])}), "1 to 9"),
    (body({"lengths": np.array([3, 10])}), "1 to 9"), (body({"lengths": np.full(11, 4)}), "at most 40"),
    (body({"mask": np.ones((2, 5), np.uint8)}), "mask"), (body({"mask": np.full((2, 4), 2, np.uint8)}), "mask"),
    (body({"mask": np.ones((2, 4), np.uint8)}), "beyond"), (body({"mask": np.zeros((2, 4), np.uint8)}), "none"),
    (body({"words": np.zeros((7, ROWS), np.uint32)}), "words must be"),
    (body({"words": np.zeros((6, ROWS), np.uint64)}), "words must be"),
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


def keys_body(change: dict[str, Any] | None = None, without: str = "") -> bytes:
    half = key_halves([3, 4])[0]
    tensors = {k: v for k, v in (load(pack_half(half)) | (change or {})).items() if k != without}
    return bytes(save(tensors, metadata={"format": "secformer request 2", "request": ID, "model": "m"}))


@pytest.mark.parametrize(("bad", "said"), [
    *((keys_body(without=name), "keys of its rows") for name in ("salt", "seeds", "corrections", "turns", "finals",
                                                                 "segments")),
    (keys_body({"words": np.zeros((7, 42), np.uint32)}), "keys of its rows"), (body(), "keys of its rows"),
    (keys_body({"seed": np.zeros(32, np.uint8)}), "keys of its rows"),
    (keys_body({"salt": np.zeros(3, np.uint32)}), "salt must be"),
    (keys_body({"seeds": np.zeros((6, 4), np.uint32)}), "seeds must be"),
    (keys_body({"seeds": np.zeros((7, 4), np.uint64)}), "seeds must be"),
    (keys_body({"corrections": np.zeros((7, 3, 4), np.uint32)}), "corrections must be"),
    (keys_body({"turns": np.zeros((7, 1), np.uint8)}), "turns must be"),
    (keys_body({"turns": np.full((7, 2), 4, np.uint8)}), "turns must lie in 0..3, got 4"),
    (keys_body({"finals": np.zeros((7, 17), np.uint64)}), "finals must be"),
    (keys_body({"finals": np.zeros((7, 16), np.int64)}), "finals must be"),
    (keys_body({"segments": np.zeros((7, 3), np.uint64)}), "segments must be"),
    (keys_body({"lengths": np.array([3, 3])}), "mask|must be"),
])
def test_malformed_keys_are_refused(bad: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        unpack_half(bad, **PRIVATE)


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
