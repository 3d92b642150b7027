"""Several arrays in one call are each what the plain steps make of them, wherever they lie in a message."""

from __future__ import annotations

import numpy as np
import pytest
from mpc_lab import kernels_named

from secformer.mpc.kernels.words import Mask, Masked, Piece

pytest.importorskip("numba")

EDGES = (1, 2, 3, 7, 8, 9, 511, 512, 513, 1023, 1024, 1025)  # around blocks of words and of the cipher
WIDTHS = (1, 8, 9, 16, 24, 31, 32, 33, 40, 48, 53, 56, 57, 63, 64)


def pieces_of(large: bool) -> list[Piece]:
    """Odd sizes in all widths, one behind the other, so that each lies elsewhere; bytes between them; with `large`,
    more than go together."""
    sizes = [EDGES[i % len(EDGES)] for i in range(2 * len(WIDTHS))]
    found = [Piece(n, WIDTHS[i % len(WIDTHS)]) for i, n in enumerate(sizes)]
    raw = [Piece(n, 8, True) for n in (1, 7, 8, 24, 1025)]
    return [*found[:9], *raw, *found[9:], *([Piece(1 << 14, 40)] if large else [])]


def same(name: str, *arguments: object) -> list[np.ndarray]:
    """What both kernels give, which must be the same."""
    x, y = (getattr(kernels_named(n), name)(*arguments) for n in ("numpy", "numba"))
    each = [v if isinstance(v, list) else [v] for v in (x, y)]
    for a, b in zip(*each, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name, strict=True)
    return each[1]


def keys_of(count: int) -> list[bytes]:
    return [bytes([i]) * 32 for i in range(count)]


@pytest.mark.parametrize("large", [False, True])
def test_fields_of_a_correlation(large: bool) -> None:
    pieces, rng = pieces_of(large), np.random.default_rng(0)
    keys = keys_of(len(pieces))
    shares = same("shares", keys, pieces)
    values = [rng.integers(0, 256, p.length, np.uint8) if p.raw else rng.integers(0, 1 << 64, p.length, np.uint64)
              for p in pieces]
    (payload,) = same("corrections", keys, values, pieces)
    assert payload.size == sum(p.nbytes for p in pieces)
    for own, correction, value, p in zip(shares, same("unpacked", payload, pieces), values, pieces, strict=True):
        total = own ^ correction if p.raw else own + correction
        mask = np.uint64(2**p.bits - 1)
        np.testing.assert_array_equal(total if p.raw else total & mask, value if p.raw else value & mask)


def test_a_message_that_begins_at_an_odd_address() -> None:
    pieces = pieces_of(False)
    room = np.random.default_rng(1).integers(0, 256, 1 + sum(p.nbytes for p in pieces)).astype(np.uint8)
    kept = room.copy()
    same("unpacked", room[1:], pieces)
    np.testing.assert_array_equal(room, kept)


def test_one_field_and_empty_ones() -> None:
    for pieces in ([Piece(5, 24)], [Piece(0, 24), Piece(3, 64), Piece(0, 8, True)]):
        values = [np.arange(p.length, dtype=np.uint8 if p.raw else np.uint64) for p in pieces]
        (payload,) = same("corrections", keys_of(len(pieces)), values, pieces)
        same("unpacked", payload, pieces)
        same("shares", keys_of(len(pieces)), pieces)


@pytest.mark.parametrize("size", [1, 513, 1 << 14])
def test_masks_of_the_dealer(size: int) -> None:
    masks = [Mask(size if i % 3 else 3, bits, xor, carries) for i, (bits, xor, carries) in enumerate(
        (bits, *how) for bits in WIDTHS for how in ((False, False), (True, False), (False, True)))]
    keys = keys_of(2 * len(masks))
    same("combined", list(zip(keys[::2], keys[1::2], strict=True)), masks)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("xor", [False, True])
def test_items_of_an_opening(large: bool, xor: bool) -> None:
    rng = np.random.default_rng(2)
    pieces = [p for p in pieces_of(large) if not p.raw]
    both = [[(rng.integers(0, 1 << 64, p.length, np.uint64), p.bits) for p in pieces] for _ in range(2)]
    mine = [(Masked(words, words) if i % 2 else words, bits) for i, (words, bits) in enumerate(both[0])]
    (payload,), (theirs,) = same("seal", mine), same("seal", both[1])
    same("seal", [(np.arange(6, dtype=np.uint32).reshape(2, 3), 24), (np.arange(6, dtype=np.uint64)[::2], 40)])
    for (a, bits), (b, _), u in zip(*both, same("unseal", mine, payload, theirs, xor), strict=True):
        np.testing.assert_array_equal(u, (a ^ b if xor else a + b) & np.uint64(2**bits - 1))
