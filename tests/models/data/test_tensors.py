"""A model's tensors as the protocol uses them: built from a checkpoint's, and how wide a table is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import config, tensors, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.tensors import (
    NARROW,
    TABLE,
    Formula,
    Gained,
    Part,
    Tensor,
    linear_layout,
    matrix,
    norm_layout,
    parts,
    rows_layout,
    table_width,
    verify,
)
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import ModelError, RangeError

WORDS = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize(("top", "width"), [(1.0, 24), (60.0, 24), (63.99, 32), (1000.0, 32), (16000.0, 32)])
def test_table_width_holds_word_plus_segment(top: float, width: int, tmp_path: Path) -> None:
    found = tensors(config())
    found[WORDS][5, 5] = top
    folder = ModelFolder(write_checkpoint(tmp_path, weights=found))
    chosen = table_width(folder.architecture.tables()[TABLE], folder.checkpoint, 16, 2.0**14)
    reach = top + np.abs(found["embeddings.token_type_embeddings.weight"]).max()
    assert reach < 2.0 ** (chosen - 18)
    assert chosen == width in NARROW


# ---- tensors built from parts ----------------------------------------------------------------------------------------


def saved(folder: Path, **found: np.ndarray) -> Checkpoint:
    save_file({name: np.asarray(values, np.float64) for name, values in found.items()}, folder / "model.safetensors")
    return Checkpoint(folder)


def numbers(*shape: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + np.prod(shape), dtype=np.float64).reshape(shape)


def test_parts_are_transposed_scaled_and_joined(tmp_path: Path) -> None:
    a, b = numbers(2, 3), numbers(4, 3, start=50)
    checkpoint = saved(tmp_path, a=a, b=b)
    columns = Tensor((Part(("a",), (2, 3), True, 0.25), Part(("b",), (4, 3), True)))
    assert columns.shape == (3, 6)
    np.testing.assert_array_equal(columns.build(checkpoint), np.hstack([a.T / 4, b.T]))
    rows = Tensor((Part(("a",), (2, 3), factor=-2.0), Part(("b",), (4, 3))), axis=0)
    assert rows.shape == (6, 3)
    np.testing.assert_array_equal(rows.build(checkpoint), np.vstack([-2.0 * a, b]))


def test_some_rows_and_columns_are_taken(tmp_path: Path) -> None:
    b = numbers(4, 6)
    checkpoint = saved(tmp_path, b=b)
    scaled = Tensor((Part(("b",), (4, 6), factor=2.0, columns=(0, 2)), Part(("b",), (4, 6), columns=(2, 6))))
    assert scaled.shape == (4, 6)
    np.testing.assert_array_equal(scaled.build(checkpoint), np.hstack([2 * b[:, :2], b[:, 2:]]))
    both = Tensor((Part(("b",), (4, 6), True, rows=(1, 4), columns=(3, 5)),))
    assert both.shape == (2, 3)
    np.testing.assert_array_equal(both.build(checkpoint), b[1:4, 3:5].T)
    (block,) = Tensor((Part(("b",), (4, 6), columns=(3, 5)),), axis=0).blocks(checkpoint, 1)
    np.testing.assert_array_equal(block, b[:, 3:5])


@pytest.mark.parametrize(("elements", "rows"), [(99, [2, 4]), (6, [2, 2, 2]), (5, [1, 1, 1, 1, 1, 1]), (1, [1] * 6)])
def test_joined_rows_come_in_blocks(tmp_path: Path, elements: int, rows: list[int]) -> None:
    checkpoint = saved(tmp_path, a=numbers(2, 3), b=numbers(4, 3, start=50))
    joined = Tensor((Part(("a",), (2, 3)), Part(("b",), (4, 3))), axis=0)
    found = list(joined.blocks(checkpoint, elements))
    assert [len(block) for block in found] == rows
    np.testing.assert_array_equal(np.concatenate(found), joined.build(checkpoint))
    for whole in (Tensor((Part(("b",), (4, 3), True),)), Tensor((Part(("b",), (4, 3), factor=2.0),), axis=0),
                  Tensor((Part(("b",), (4, 3)), Part(("b",), (4, 3))))):  # anything but rows one below the other
        (block,) = whole.blocks(checkpoint, elements)
        np.testing.assert_array_equal(block, whole.build(checkpoint))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=4), st.sampled_from([0, -1]))
def test_the_shape_is_the_builts(sizes: list[tuple[int, bool]], axis: int) -> None:
    """Any number of parts, stored either way, joined along either axis."""
    class Zeros:
        def __contains__(self, name: str) -> bool:
            return True

        def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
            return np.zeros(shape)

    laid = [(n, 3) if axis == 0 else (3, n) for n, _ in sizes]
    parts_ = tuple(Part((f"p{i}",), shape[::-1] if turned else shape, turned)
                   for i, (shape, (_, turned)) in enumerate(zip(laid, sizes, strict=True)))
    tensor = Tensor(parts_, axis)
    assert tensor.shape == tensor.build(Zeros()).shape  # type: ignore[arg-type]


def test_what_is_built_lies_row_by_row(tmp_path: Path) -> None:
    """Shares are subtracted over the flat array."""
    built = matrix("a", 3, 2).build(saved(tmp_path, a=numbers(2, 3)))
    assert built.flags.c_contiguous and built.reshape(-1).tolist() == [0, 3, 1, 4, 2, 5]


def test_the_first_name_that_is_there_is_read(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, b=np.ones(2), c=np.zeros(2))
    assert Part(("a", "b", "c"), (2,)).name(checkpoint) == "b"
    assert Tensor((Part(("a", "b", "c"), (2,)),)).build(checkpoint).tolist() == [1.0, 1.0]
    assert Part(("a", "x"), (2,)).name(checkpoint) == "a"
    with pytest.raises(ModelError, match="lacks tensor 'a'"):
        Tensor((Part(("a", "x"), (2,)),)).build(checkpoint)


def test_some_rows_of_a_stored_tensor(tmp_path: Path) -> None:
    """Q, K and V of one matrix, each with a factor of its own; what is checked and counted is the whole."""
    w, b = numbers(6, 2), numbers(6, start=20)
    checkpoint = saved(tmp_path, **{"there.weight": w, "there.bias": b})
    found = rows_layout("here", "there", 2, (0.5, 1.0, -1.0))
    factors = np.repeat([0.5, 1.0, -1.0], 2)
    assert found["here.weight"].shape == (2, 6) and found["here.bias"].shape == (6,) and found["here.weight"].standing
    np.testing.assert_array_equal(found["here.weight"].build(checkpoint), w.T * factors)
    np.testing.assert_array_equal(found["here.bias"].build(checkpoint), b * factors)
    assert list(rows_layout("here", "there", 2, (1.0,), bias=False)) == ["here.weight"]
    assert {p.shape for t in found.values() for p in t.parts} == {(6, 2), (6,)}


def test_layers_without_bias() -> None:
    assert list(linear_layout("here", "there", 3, 5, bias=False)) == ["here.weight"]
    assert list(norm_layout("here", "there", 5, bias=False)) == ["here.weight"]


def test_layers_of_pytorch() -> None:
    dense, normed = linear_layout("here", "there.dense", 3, 5), norm_layout("here.norm", "there.LayerNorm", 5)
    assert {name: t.shape for name, t in (dense | normed).items()} == {
        "here.weight": (3, 5), "here.bias": (5,), "here.norm.weight": (5,), "here.norm.bias": (5,)}
    assert [p.names[0] for p in parts(dense | normed)] == [
        "there.dense.weight", "there.dense.bias", "there.LayerNorm.weight", "there.LayerNorm.bias"]
    assert [p.shape for p in parts(dense)] == [(5, 3), (5,)]
    assert [name for name, t in (dense | normed).items() if t.standing] == ["here.weight"]


# ---- the width of a table --------------------------------------------------------------------------------------------

ULP = 2.0**-16  # unit in the last place, with 16 fractional bits


def table(*shapes: tuple[int, int]) -> Tensor:
    return Tensor(tuple(Part((f"t{i}",), shape) for i, shape in enumerate(shapes)), 0, True)


@pytest.mark.parametrize(("first", "second", "width"), [
    (0.0, 0.0, 24), (63.0, 1.0 - 2 * ULP, 24), (63.0, 1.0 - ULP, 32), (-63.0, -1.0 + ULP, 32), (-63.0, 1.0, 32),
    (2.0**13, 2.0**13 - 2 * ULP, 32), (2.0**13, 2.0**13 - ULP, 64),
])
def test_widths_at_their_bounds(first: float, second: float, width: int, tmp_path: Path) -> None:
    """Whatever the signs, a row of each part is added, with one unit in the last place for rounding."""
    checkpoint = saved(tmp_path, t0=np.array([[0.0, first]]), t1=np.array([[second, 0.0], [0.0, 0.0]]))
    assert table_width(table((1, 2), (2, 2)), checkpoint, 16, 2.0**14) == width


def test_finer_words_need_wider_tables(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, t0=np.array([[3.0]]))
    assert [table_width(table((1, 1)), checkpoint, frac, 2.0**10) for frac in (20, 21, 28, 29)] == [24, 32, 32, 64]


def test_sums_beyond_the_bound_are_refused(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, t0=np.array([[6.0]]), t1=np.array([[2.0]]))
    with pytest.raises(RangeError, match=r"rows of t0 plus t1 add up to values as large as 8; .* \|v\| < 8"):
        table_width(table((1, 1), (1, 1)), checkpoint, 16, 8.0)
    with pytest.raises(RangeError, match="'t0' holds the value 6"):
        table_width(table((1, 1), (1, 1)), checkpoint, 16, 6.0)
    assert table_width(table((1, 1), (1, 1)), checkpoint, 16, 8.5) == 24


# ---- tensors that are computed ---------------------------------------------------------------------------------------


class Product(Formula):
    """a b, for a transposed and scaled part a."""

    shape = (3, 2)

    def __call__(self, xp: Any, *parts: Any) -> Any:
        a, b = parts
        return xp.sum(a[:, :, None] * b, axis=1)


COMPUTED = Tensor((Part(("a",), (4, 3), True, 0.5), Part(("b",), (4, 2))), standing=True, formula=Product())


def test_a_formula_gets_parts_as_they_are_told(tmp_path: Path) -> None:
    a, b = numbers(4, 3), numbers(4, 2, start=7)
    assert COMPUTED.shape == (3, 2) and [p.names for p in parts({"x": COMPUTED})] == [("a",), ("b",)]
    built = COMPUTED.build(saved(tmp_path, a=a, b=b))
    np.testing.assert_array_equal(built, a.T / 2 @ b)
    assert built.flags.c_contiguous


def test_gains_of_rows_are_multiplied_in(tmp_path: Path) -> None:
    a, b, gains = numbers(2, 3), numbers(4, 3, start=50), np.array([0.5, -2.0, 3.0])
    checkpoint = saved(tmp_path, a=a, b=b, gains=gains)
    tensor = Tensor((Part(("gains",), (3,), factor=8.0), Part(("a",), (2, 3), True), Part(("b",), (4, 3), True, 0.25)),
                    standing=True, formula=Gained(3, 6))
    assert tensor.shape == (3, 6)
    np.testing.assert_array_equal(tensor.build(checkpoint), np.diag(8.0 * gains) @ np.hstack([a.T, b.T / 4.0]))
    top = np.abs(tensor.build(checkpoint)).max()
    verify({"x": tensor}, checkpoint, top + 1.0)
    with pytest.raises(RangeError, match=f"x, which is computed from gains, a, b, holds the value {top:g}"):
        verify({"x": tensor}, checkpoint, top)


def test_what_a_formula_makes_must_fit_too(tmp_path: Path) -> None:
    """Its parts are below the bound, and so is half of the largest entry."""
    a, b = numbers(4, 3), numbers(4, 2, start=7)
    top = (a.T / 2 @ b).max()
    checkpoint = saved(tmp_path, a=a, b=b)
    verify({"x": COMPUTED}, checkpoint, top + 1.0)
    with pytest.raises(RangeError, match=f"x, which is computed from a, b, holds the value {top:g}; .*< {top:g}"):
        verify({"x": COMPUTED}, checkpoint, top)
    with pytest.raises(RangeError, match="'b' holds the value 14"):
        verify({"x": COMPUTED}, checkpoint, 14.0)
