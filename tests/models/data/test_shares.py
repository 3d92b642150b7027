"""The owner's shares: what a seed expands to plus the other party's words are the encoded tensors, at every width."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from secformer.models.data import shares
from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.shares import GhostTensors, OwnerShares, PlainTensors, SeedShares, uniform
from secformer.models.data.tensors import Layout, Part, Tensor
from secformer.mpc.fixed import encode
from secformer.mpc.ring import word_type

SEED, OTHER = bytes(range(32)), bytes(range(1, 33))
WIDTHS = (24, 32, 48, 64)
LAYOUT: Layout = {
    "table": Tensor((Part(("words",), (7, 3)), Part(("segments",), (2, 3))), 0, True),
    "matrix": Tensor((Part(("matrix",), (5, 3), True, 0.5),), standing=True),
    "bias": Tensor((Part(("bias",), (5,)),)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder, rng = tmp_path_factory.mktemp("tensors"), np.random.default_rng(0)
    shapes = {p.names[0]: p.shape for tensor in LAYOUT.values() for p in tensor.parts}
    save_file({name: rng.normal(0.0, 8.0, shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    return Checkpoint(folder)


def at_width(width: int) -> Layout:
    return {name: replace(tensor, width=width) for name, tensor in LAYOUT.items()}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("frac", [12, 16])
@pytest.mark.parametrize("block", [1, 4, 15, 1 << 20])
def test_both_shares_add_up_to_the_encoded_tensor(checkpoint: Checkpoint, width: int, frac: int, block: int,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a tensor is encoded in several blocks, of which the last is short."""
    monkeypatch.setattr(shares, "BLOCK", block)
    layout = at_width(width)
    owner, seeded = OwnerShares(layout, SEED, checkpoint, frac), SeedShares(layout, SEED)
    for name, tensor in layout.items():
        mine, theirs = owner.get(name), seeded.get(name)
        assert mine.dtype == theirs.dtype == word_type(width) and mine.shape == theirs.shape == tensor.shape
        np.testing.assert_array_equal(mine + theirs, encode(tensor.build(checkpoint), frac).astype(mine.dtype))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_seeds_tensors_differ_by_name_and_by_seed(width: int) -> None:
    """Two tensors under one mask would give away their difference."""
    one = Tensor((Part(("any",), (4, 4)),), width=width)
    layout = {"layer.0.weight": one, "layer.1.weight": one}
    a, b = (SeedShares(layout, SEED).get(name) for name in layout)
    assert not (a == b).any()
    assert not (a == SeedShares(layout, OTHER).get("layer.0.weight")).any()
    np.testing.assert_array_equal(a, SeedShares(layout, SEED).get("layer.0.weight"))


def test_an_owners_share_changes_with_the_seed(checkpoint: Checkpoint) -> None:
    a, b = (OwnerShares(LAYOUT, seed, checkpoint, 16).get("bias") for seed in (SEED, OTHER))
    assert not (a == b).any()


def test_the_twin_gets_the_values_and_the_recorder_shapes(checkpoint: Checkpoint) -> None:
    for name, tensor in LAYOUT.items():
        np.testing.assert_array_equal(PlainTensors(LAYOUT, checkpoint).get(name), tensor.build(checkpoint))
        ghost = GhostTensors(LAYOUT).get(name)
        assert ghost.shape == tensor.shape and not ghost.any() and set(ghost.strides) == {0}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.sampled_from(WIDTHS))
def test_uniform_words(shape: list[int], width: int) -> None:
    words = uniform(SEED, "x", tuple(shape), width)
    assert words.shape == tuple(shape) and words.dtype == (np.uint32 if width <= 32 else np.uint64)


def test_uniform_bits_are_balanced() -> None:
    """Every bit of a word is a coin: also the upper ones, where a width is not a whole number of words."""
    for width in (24, 64):
        words = uniform(SEED, "x", (4096,), width)
        ones = np.unpackbits(words.view(np.uint8).reshape(4096, -1), axis=1).mean(axis=0)
        assert np.abs(ones - 0.5).max() < 6 * 0.5 / 64
