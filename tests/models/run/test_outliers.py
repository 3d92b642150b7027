"""Models whose weights and values are of very different sizes, as in large pretrained ones.

They load, and their answers are near relative to their largest value.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import config, tensors, write_checkpoint
from runs_lab import CPU, TEXTS

from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.check import differences
from secformer.models.run.local import plain_bert, secure_bert, twin
from secformer.mpc.errors import RangeError
from secformer.protocols.recipes import RECIPES

SHAPE = {"hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
Weights = dict[str, np.ndarray]
Change = Callable[[Weights], None]


def model(path: Path, *changes: Change, seed: int = 0, scale: float = 0.15) -> Path:
    """A tiny encoder after changes of its tensors."""
    found = tensors(config(**SHAPE), seed, scale)
    for change in changes:
        change(found)
    return write_checkpoint(path, weights={n: v.astype(np.float32) for n, v in found.items()}, **SHAPE)


def times(factor: float, *names: str) -> Change:
    """Multiplies the tensors whose names end so."""

    def change(found: Weights) -> None:
        for name in found:
            if name.endswith(names):
                found[name] = found[name] * factor

    return change


def outlier(value: float, name: str, within: str = "") -> Change:
    """One channel of the vectors, or of the rows of the tables, whose names end so and contain `within`."""

    def change(found: Weights) -> None:
        for each in found:
            if each.endswith(name) and within in each:
                found[each][..., 7] = value

    return change


def far(path: Path, recipe: str = "faithful", **settings: int) -> tuple[float, float]:
    """The errors of twin and secure answer, relative to the largest value of plaintext's last hidden state."""
    exact = plain_bert(path, TEXTS, **settings)
    largest = float(np.abs(exact.last_hidden_state).max())
    answers = (run(path, TEXTS, recipe=recipe, **more, **settings) for run, more in ((twin, {}), (secure_bert, CPU)))
    errors = [differences(answer, exact)["last_hidden_state"] / largest for answer in answers]
    return errors[0], errors[1]


@pytest.mark.parametrize("gain", [15.0, 50.0, 200.0])
@pytest.mark.parametrize("within", ["", "output.LayerNorm"])
def test_outlier_gains(gain: float, within: str, tmp_path: Path) -> None:
    """In one channel of every LayerNorm, or of all but the embedding's; with a far bias."""
    path = model(tmp_path, outlier(gain, "LayerNorm.weight", within), outlier(-7.5, "LayerNorm.bias"))
    assert max(far(path)) <= 1e-3


@pytest.mark.parametrize("recipe", [r.name for r in RECIPES.values() if r.ordinary and not r.exact])
def test_outliers_in_every_recipe(recipe: str, tmp_path: Path) -> None:
    path = model(tmp_path, outlier(50.0, "LayerNorm.weight"), outlier(-7.5, "LayerNorm.bias"))
    assert max(far(path, recipe)) <= (1e-3 if recipe == "faithful" else 1e-2)


def test_sharp_attention(tmp_path: Path) -> None:
    """Scores to 100: an error of a hidden state counts many times in them."""
    path = model(tmp_path, times(8.0, "query.weight", "key.weight"), scale=0.08)
    assert max(far(path)) <= 1e-3


def test_large_inputs_of_gelu_and_large_values(tmp_path: Path) -> None:
    path = model(tmp_path, times(100.0, "intermediate.dense.weight"), times(300.0, "self.value.weight"))
    sites = measure(ModelFolder(path)).sites
    assert sites["layer.1.gelu"]["input"].high > 200.0 and sites["layer.1.softmax"]["value"].reach > 500.0
    assert max(far(path)) <= 1e-3


def test_hidden_states_of_thousands(tmp_path: Path) -> None:
    path = model(tmp_path, outlier(1300.0, "LayerNorm.weight", "layer.2.output"))
    assert np.abs(plain_bert(path, TEXTS).last_hidden_state).max() > 1500.0
    assert max(far(path)) <= 1e-3


@pytest.mark.parametrize("tensor", ["word_embeddings.weight", "self.value.weight"])
def test_weights_beyond_the_format_run_with_the_magnitude_that_the_refusal_names(tensor: str, tmp_path: Path) -> None:
    path = model(tmp_path, outlier(20000.0, tensor))
    with pytest.raises(RangeError, match=r"holds the value 20000.*Raise `magnitude`"):
        secure_bert(path, TEXTS, **CPU)
    assert max(far(path, magnitude=22)) <= 1e-3
