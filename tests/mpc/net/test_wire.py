"""Frames: round trips and refusals."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples

from secformer.mpc.errors import Desync, ProtocolError
from secformer.mpc.net.wire import (
    ABORT,
    DATA,
    HEADER_BYTES,
    MAGIC,
    NOTE,
    VERB_BYTES,
    Tag,
    joint_name,
    pack_header,
    unpack_header,
)

VERBS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=16)


@examples(200)
@given(
    step=st.integers(0, 2**32 - 1),
    verb=VERBS,
    bits=st.integers(0, 64),
    count=st.integers(0, 2**64 - 1),
    nbytes=st.integers(0, 2**64 - 1),
    kind=st.sampled_from([DATA, ABORT, NOTE]),
)
def test_round_trip(step: int, verb: str, bits: int, count: int, nbytes: int, kind: int) -> None:
    tag = Tag(step, verb, bits, count)
    header = pack_header(tag, nbytes, kind)
    assert len(header) == HEADER_BYTES
    assert unpack_header(header) == (kind, tag, nbytes)


@examples(200)
@given(junk=st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES).filter(lambda b: b[:4] != MAGIC))
def test_what_is_not_a_frame_is_a_desync(junk: bytes) -> None:
    with pytest.raises(Desync, match="version"):
        unpack_header(junk)


@examples(100)
@given(rest=st.binary(min_size=HEADER_BYTES - 5, max_size=HEADER_BYTES - 5), kind=st.integers(3, 255))
def test_an_unknown_type_is_a_desync(rest: bytes, kind: int) -> None:
    with pytest.raises(Desync):
        unpack_header(MAGIC + bytes([kind]) + rest)


@examples(100)
@given(rest=st.binary(min_size=HEADER_BYTES - 8, max_size=HEADER_BYTES - 8))
def test_any_other_header_is_a_desync_or_means_itself_alone(rest: bytes) -> None:
    header = MAGIC + bytes([DATA, 0, 0, 0]) + rest
    try:
        kind, tag, nbytes = unpack_header(header)
    except Desync:
        return
    assert kind == DATA and nbytes == struct.unpack("<Q", rest[-8:])[0]
    assert pack_header(tag, nbytes, kind) == header


@pytest.mark.parametrize(("place", "value"), [(5, 1), (7, 255), (12, 0xC3), (13, 0xFF)])
def test_a_header_has_one_spelling(place: int, value: int) -> None:
    """Padding that is not zero, and a verb that is not ASCII: found by fuzzing."""
    header = bytearray(pack_header(Tag(7, "product", 48, 3), 18))
    header[place] = value
    with pytest.raises(Desync, match="not written as this version"):
        unpack_header(bytes(header))


def test_tags_tell_their_story() -> None:
    assert str(Tag(3, "product", 48, 12)) == "step 3: product of 12 elements at 48 bits"


def test_a_verb_that_a_header_does_not_hold_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"at most 16 bytes, got 'digest\+product\+series'"):
        pack_header(Tag(1, "digest+product+series", 64, 1), 8)


@pytest.mark.parametrize(("verbs", "name"), [
    (["product"], "product"), (["product", "product"], "product"), (["product", "series"], "product+series"),
    (["digest", "product", "series"], "dige+prod+seri"), (["coin", "a", "b", "c", "d"], "coin+a+b+c+d"),
    ([f"verb{i}" for i in range(9)], "9 verbs"),
])
def test_names_of_verbs_that_share_a_round_fit(verbs: list[str], name: str) -> None:
    assert joint_name(verbs) == name and len(name) <= VERB_BYTES


@examples(200)
@given(verbs=st.lists(VERBS, min_size=1, max_size=40))
def test_the_joint_name_of_any_verbs_fits(verbs: list[str]) -> None:
    assert len(joint_name(verbs)) <= VERB_BYTES
