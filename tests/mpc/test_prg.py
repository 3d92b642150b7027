"""Streams: RFC 8439 vectors, names, determinism, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples, kernels_named, looks_uniform

from secformer.mpc.errors import RangeError
from secformer.mpc.kernels import Kernels
from secformer.mpc.prg import MAX_BLOCKS, SEED_BYTES, Stream, Streams, derive, fresh_seed, spelt

SEED = bytes(range(32))
# RFC 8439, appendix A.1, test vectors 1 to 4: (last key bytes, block, keystream); the nonce is zero in all of them.
VECTORS = [
    (
        bytes(32),
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        bytes(32),
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        bytes(31) + b"\x01",
        1,
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    (
        b"\x00\xff" + bytes(30),
        2,
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
]


@pytest.mark.parametrize(("key", "block", "expected"), VECTORS)
def test_rfc_8439_vectors(kernels: Kernels, key: bytes, block: int, expected: str) -> None:
    assert kernels.keystream(key, block, 64).tobytes().hex() == expected
    before = kernels.keystream(key, max(0, block - 1), 64 + 64 * min(1, block)).tobytes()
    assert before[-64:].hex() == expected  # the counter runs on


@examples(40)
@given(
    start=st.integers(0, 5),
    nbytes=st.sampled_from([0, 1, 63, 64, 65, 1000, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 200_001]),
)
def test_keystream_is_addressable(start: int, nbytes: int) -> None:
    k = kernels_named("numpy")
    whole = k.keystream(SEED, 0, 64 * start + nbytes)
    np.testing.assert_array_equal(k.keystream(SEED, start, nbytes), whole[64 * start :])


def test_same_name_same_words_whatever_the_kernels(kernels: Kernels) -> None:
    a, b = Stream(SEED, "run", 3, 0, "mask", kernels=kernels), Stream(SEED, "run", 3, 0, "mask")
    for count, bits in [(5, 64), (1, 3), (7, 33), (0, 8), (100, 24)]:
        np.testing.assert_array_equal(a.words(count, bits), b.words(count, bits))


def test_reads_never_overlap() -> None:
    s = Stream(SEED, "x")
    blocks = {s.read(64).tobytes() for _ in range(50)} | {s.read(1).tobytes() * 64 for _ in range(3)}
    assert len(blocks) >= 51
    t = Stream(SEED, "x")
    t.read(1)
    np.testing.assert_array_equal(t.read(64), kernels_named("numpy").keystream(derive(SEED, "x"), 1, 64))


def test_names_are_injective() -> None:
    names: list[tuple[str | int, ...]] = [
        (),
        ("",),
        ("", ""),
        ("a",),
        ("b",),
        ("a", ""),
        ("ab",),
        ("a", "b"),
        ("b", "a"),
        (1,),
        ("1",),
        (11,),
        (1, 1),
        ("1", 1),
        (-1,),
        ("a", 12),
        ("a", 1, 2),
        ("a1", 2),
        ("int:1",),
        ("str:a",),
        ("run", 0, 1, "mask0"),
        ("run", 0, 10, "mask"),
    ]
    assert len({derive(SEED, *n) for n in names}) == len(names)
    assert derive(SEED, "a") != derive(bytes(32), "a")


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33), bytes(64)])
def test_bad_seeds_are_refused(seed: bytes) -> None:
    with pytest.raises(RangeError, match="32 bytes"):
        Stream(seed, "x")


def test_fresh_seeds_differ() -> None:
    seeds = {fresh_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert {len(s) for s in seeds} == {SEED_BYTES}


def test_a_stream_ends_before_its_counter_wraps() -> None:
    s = Stream(SEED, "x")
    s._block = MAX_BLOCKS - 1
    s.read(64)
    with pytest.raises(RangeError, match="256 GiB"):
        s.read(1)
    t = Stream(SEED, "x")
    t._block = MAX_BLOCKS - 1
    with pytest.raises(RangeError):
        t.read(65)


@pytest.mark.parametrize("bits", [1, 3, 5, 8, 13, 16, 24, 31, 32, 33, 48, 63, 64])
def test_words_are_uniform_below_their_bits(bits: int) -> None:
    assert looks_uniform(Stream(SEED, "uniform", bits).words(20_000, bits), bits)


def test_words_below_zero_bits_are_zero() -> None:
    assert not Stream(SEED, "none").words(10, 0).any()


def test_a_sealing_uses_as_much_of_the_stream_as_the_words_of_its_mask() -> None:
    x = np.arange(40, dtype=np.uint64)
    for bits in (5, 24, 48):
        stream, after = Stream(SEED, "a"), Stream(SEED, "a")
        sealing = stream.sealing(x, bits, 7)
        after.words(40, bits)
        assert (sealing.block, sealing.size) == (0, 40)
        np.testing.assert_array_equal(stream.words(3), after.words(3))


def test_streams_that_begin_alike_are_those_of_their_whole_names() -> None:
    begun = Streams(SEED, "run", 3, kernels=kernels_named("numpy"))
    for rest in ((0, "mask"), (1, "mask"), ("1", "mask"), (1,), (1, "mask", 2), (True, "mask")):
        np.testing.assert_array_equal(begun.stream(*rest).words(9), Stream(SEED, "run", 3, *rest).words(9))
    assert not np.array_equal(begun.stream(1).words(9), begun.stream("1").words(9))
    wanted = [derive(SEED, "run", 3, 1, name) for name in ("mask", "wraps")]
    assert begun.keys(spelt(1), [spelt("mask"), spelt("wraps")]) == wanted
    with pytest.raises(RangeError, match="a seed has 32 bytes, got 5"):
        Streams(b"short", "run", 3, kernels=kernels_named("numpy"))
