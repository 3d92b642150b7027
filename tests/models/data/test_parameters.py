"""A model's tensors in a session: matrices under standing masks, the rest as shares, by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors
from secformer.models.data.tensors import TABLE, Layout, Part, Tensor, linear_layout, norm_layout
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder

LAYOUT: Layout = {
    "positions": Tensor((Part(("p",), (6, 4)),)),  # a matrix by its shape, but not the operand of a product
    TABLE: Tensor((Part(("t",), (9, 4)),), 0, True, 24),
    **linear_layout("layer.0.dense", "a", 4, 5), **linear_layout("layer.1.dense", "b", 4, 5),
    **norm_layout("layer.1.norm", "c", 4),
}


class Counted:
    """Tensors whose every value is the number of calls so far."""

    layout = LAYOUT

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, name: str) -> np.ndarray:
        self.asked.append(name)
        return np.full(self.layout[name].shape, float(len(self.asked)))


def test_standing_matrices_are_those_that_the_layout_names() -> None:
    found = load_weights(PlainSession(), Counted())
    assert list(found.matrices) == [TABLE, "layer.0.dense.weight", "layer.1.dense.weight"]
    assert list(found.vectors) == ["positions", "layer.0.dense.bias", "layer.1.dense.bias", "layer.1.norm.weight",
                                   "layer.1.norm.bias"]


def test_tensors_are_read_once_and_in_the_layouts_order() -> None:
    """Both parties open matrices in this order, and a large model is in memory one tensor at a time."""
    tensors, s = Counted(), PlainSession()
    found = load_weights(s, tensors)
    assert tensors.asked == list(LAYOUT)
    for i, name in enumerate(LAYOUT, start=1):
        if name in found.vectors:
            assert (found.vector(name).data == i).all() and found.vector(name).shape == LAYOUT[name].shape


@pytest.mark.parametrize(("elements", "rows"), [(1 << 23, [9]), (36, [9]), (35, [8, 1]), (12, [3, 3, 3]), (1, [1] * 9)])
def test_a_large_table_is_opened_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch, elements: int,
                                                   rows: list[int]) -> None:
    monkeypatch.setattr("secformer.models.data.parameters.BLOCK", elements)
    table = np.arange(36.0).reshape(9, 4)

    class Filled(Counted):
        def get(self, name: str) -> np.ndarray:
            return table if name == TABLE else super().get(name)

    found = load_weights(PlainSession(), Filled())
    blocks = found.blocks(TABLE)
    assert [block.shape for block in blocks] == [(n, 4) for n in rows]
    np.testing.assert_array_equal(np.concatenate([block.data for block in blocks]), table)
    assert found.matrix(TABLE) is blocks[0] and found.blocks("layer.0.dense.weight") == [
        found.matrix("layer.0.dense.weight")]
    plan = PlanRecorder().record(lambda s: load_weights(s, GhostTensors(LAYOUT)))
    standing = [t for t in LAYOUT.values() if t.standing]
    assert plan.rounds == len(rows) + 2
    assert plan.bytes == 2 * sum(np.prod(t.shape) * t.width // 8 for t in standing)


def test_names_are_looked_up_inside_a_prefix() -> None:
    found = load_weights(PlainSession(), Counted())
    layer = found.inside("layer.1")
    assert layer.inside("dense").matrix("weight") is found.matrix("layer.1.dense.weight")
    assert layer.vector("norm.bias") is found.vector("layer.1.norm.bias")
    assert layer.matrix("dense.weight") is not found.inside("layer.0").matrix("dense.weight")
    assert found.prefix == ""
    with pytest.raises(KeyError):
        layer.vector("dense.weight")  # a matrix
    with pytest.raises(KeyError):
        found.inside("layer.0").vector("norm.bias")


def test_the_price_is_a_round_and_the_width_of_every_matrix() -> None:
    plan = PlanRecorder().record(lambda s: load_weights(s, GhostTensors(LAYOUT)))
    standing = [t for t in LAYOUT.values() if t.standing]
    assert plan.rounds == len(standing) == 3
    assert plan.bytes == 2 * sum(np.prod(t.shape) * t.width // 8 for t in standing)


def test_shares_have_the_layouts_width() -> None:
    layout = LAYOUT | {"layer.0.dense.bias": replace(LAYOUT["layer.0.dense.bias"], width=32)}
    seen: list[int] = []
    PlanRecorder().record(lambda s: seen.extend(
        share.width for share in load_weights(s, GhostTensors(layout)).vectors.values()))
    assert seen == [64, 32, 64, 64, 64]
