"""Tensors of encoders: every name of a layer, and what follows from the weights alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint

from secformer.models.data.shares import PlainTensors
from secformer.models.families.encoder import Encoder
from secformer.models.families.encoder_tensors import EncoderTensors
from secformer.models.families.folder import ModelFolder
from secformer.mpc.fixed import FixedPoint


def test_a_layers_tensors_in_the_programs_order(tmp_path: Path) -> None:
    a = ModelFolder(write_checkpoint(tmp_path)).architecture
    assert isinstance(a, Encoder) and issubclass(Encoder, EncoderTensors)
    here = a.layer_layout("layer.0", a.place(0))
    assert list(here) == [f"layer.0.{name}" for name in (
        "qkv.weight", "qkv.bias", "attention.weight", "attention.bias", "attention.layernorm.weight",
        "attention.layernorm.bias", "intermediate.weight", "intermediate.bias", "output.weight", "output.bias",
        "output.layernorm.weight", "output.layernorm.bias")]
    c = a.spec.hidden
    assert here["layer.0.qkv.weight"].shape == (c, 3 * c) and here["layer.0.output.weight"].shape[1] == c
    assert a.scale == pytest.approx((c // a.spec.heads) ** -0.5)


def test_bounds_are_of_the_stored_weights(tmp_path: Path) -> None:
    """Twice the weights of queries, keys and values: at most twice the bound, and more than before."""
    a = ModelFolder(write_checkpoint(tmp_path)).architecture
    folder = ModelFolder(tmp_path)
    values = PlainTensors(folder.layout(FixedPoint(), private=False), folder.checkpoint).get
    before = a.certain(values)
    after = a.certain(lambda name: values(name) * 2.0 if ".qkv." in name else np.asarray(values(name)))
    assert set(before) == set(after)
    for site in before:
        assert before[site] < after[site] <= 2.0 * before[site] if "softmax" in site else before[site] <= after[site]
    assert not a.projects
