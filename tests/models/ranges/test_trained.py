"""Which recipes suit a checkpoint, by the functions that it was trained for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs_lab import CPU, TEXTS, close, folder_of

from secformer.models.families.activations import FURTHER
from secformer.models.families.architecture import Spec
from secformer.models.families.config import KEY
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.trained import DESIGNS, entry, plaintext, require, suits, trained_for, tried
from secformer.models.run.local import PlainModel, plain_bert, secure_bert, twin
from secformer.mpc.errors import ModelError, SettingsError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.activations import relu
from secformer.protocols.fidelity import student, student_of
from secformer.protocols.gates import QUICK_GELU, SILU
from secformer.protocols.mpcformer import plain_2relu
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import (
    CRYPTEN,
    EXACT,
    FAITHFUL,
    MPCFORMER,
    MPCFORMER_2RELU,
    PUMA,
    RECIPES,
    SECFORMER,
    Recipe,
)


@pytest.mark.parametrize(("entry", "recipe"), [(None, "secformer"), (None, "mpcformer"), ("secformer", "faithful"),
                                               ("secformer", "exact"), ("secformer", "mpcformer")])
def test_functions_that_a_checkpoint_was_not_trained_for(tmp_path: Path, entry: str | None, recipe: str) -> None:
    """2Quad on an ordinary checkpoint, or the reverse, runs only where that is asked for."""
    folder = folder_of(tmp_path, **({} if entry is None else {"secformer": {"recipe": entry}}))
    with pytest.raises(SettingsError, match="or pass untrained_recipe=True"):
        PlainModel.from_pretrained(folder, recipe=recipe)
    with pytest.raises(SettingsError, match="would be meaningless"):
        secure_bert(folder, "cat", recipe=recipe, **CPU)
    assert PlainModel.from_pretrained(folder, recipe=recipe, untrained_recipe=True).recipe is RECIPES[recipe]


@pytest.mark.parametrize("recipe", ["puma", "crypten", replace(FAITHFUL, name="mine", tanh=SECFORMER.tanh)])
def test_stand_ins_run_on_ordinary_checkpoints(tmp_path: Path, recipe: Any) -> None:
    assert PlainModel.from_pretrained(folder_of(tmp_path), recipe=recipe).recipe is not EXACT


def test_a_student_may_change_what_does_not_matter(tmp_path: Path) -> None:
    """Another LayerNorm computes the same function: a student takes it."""
    folder = folder_of(tmp_path, secformer={"recipe": "secformer"})
    mine = replace(SECFORMER, name="mine", layernorm=FAITHFUL.layernorm)
    assert PlainModel.from_pretrained(folder, recipe=mine).recipe is mine


def test_plaintext_of_a_student_is_its_own(tmp_path: Path) -> None:
    """The reference of a 2Quad checkpoint is 2Quad in plaintext, not softmax."""
    folder = folder_of(tmp_path, secformer={"recipe": "secformer", "constants": {"quad_shift": 5.0}})
    own, exact = plain_bert(folder, TEXTS), twin(folder, TEXTS, recipe="exact", untrained_recipe=True)
    close(own, twin(folder, TEXTS), 1e-4)
    assert np.abs(own.last_hidden_state - exact.last_hidden_state).max() > 1e-2
    close(secure_bert(folder, TEXTS, **CPU), own, 1e-2)


def test_a_student_of_other_constants_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, secformer={"recipe": "secformer", "constants": {"quad_shift": 4.0}})
    with pytest.raises(ModelError, match=r"quad_shift.*Distil the model again"):
        plain_bert(folder, "cat")


def test_designs_are_those_of_the_paper() -> None:
    assert set(DESIGNS) == {"secformer", "mpcformer"}
    with pytest.raises(TypeError):
        DESIGNS["other"] = SECFORMER  # type: ignore[index]


# ---- the rules -------------------------------------------------------------------------------------------------------

ORDINARY = ("faithful", "puma", "crypten", "exact")


def spec_of(tmp_path: Path, said: object = None) -> Spec:
    """The spec of a checkpoint whose config has this entry."""
    return ModelFolder(folder_of(tmp_path, **({} if said is None else {KEY: said}))).architecture.spec


@pytest.mark.parametrize("trained", [None, *RECIPES])
def test_what_suits_whom(trained: str | None) -> None:
    """Recipes that approximate a BERT's functions suit each other's checkpoints; students suit their own functions."""
    own = RECIPES[trained] if trained is not None else None
    suiting = {name for name, recipe in RECIPES.items() if suits(recipe, own)}
    assert suiting == (set(ORDINARY) if trained is None or trained in ORDINARY else {trained})


def test_what_a_student_is_judged_by() -> None:
    """GeLU and softmax; other functions have no part in what was trained."""
    assert suits(replace(SECFORMER, layernorm=FAITHFUL.layernorm, tanh=CRYPTEN.tanh), SECFORMER)
    assert not suits(replace(SECFORMER, gelu=MPCFORMER.gelu), SECFORMER)
    assert not suits(replace(SECFORMER, softmax=FAITHFUL.softmax), SECFORMER)
    assert suits(replace(SECFORMER, softmax=FAITHFUL.softmax), None), "nothing of a student is left in it"


@pytest.mark.parametrize("design", DESIGNS.values(), ids=lambda r: r.name)
def test_what_training_writes_is_read_again(design: Recipe, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, json.loads(json.dumps(entry(design))))
    plain = plaintext(spec)
    assert trained_for(spec) is design and plain.exact and plain.gelu is design.gelu
    assert student_of(plain.softmax).function == student_of(design.softmax).function
    assert suits(plain, design)
    require(design, spec, "here")


@pytest.mark.parametrize(("said", "recipe"), [
    (None, None), ("secformer", SECFORMER), ({"recipe": "secformer"}, SECFORMER), ({"recipe": "puma"}, PUMA),
    ({"constants": {"quad_shift": 5.0}}, None), ({"recipe": "puma", "constants": {"any": 1}}, PUMA),
])
def test_what_a_config_may_say(said: object, recipe: Recipe | None, tmp_path: Path) -> None:
    """Constants count for designs that are trained around them."""
    assert trained_for(spec_of(tmp_path, said)) is recipe


@pytest.mark.parametrize("constants", [{}, {"quad_shift": 5.5}, {"quad_shift": 5.0, "quad": [1, 2, 3]}])
def test_constants_are_compared_whole(constants: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"trained for 'secformer' with the constants .*quad_shift.*"
                                         r"Distil the model again"):
        trained_for(spec_of(tmp_path, {"recipe": "secformer", "constants": constants}))


def test_an_unknown_recipe_is_told_with_the_known(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="recipe must be one of secformer, faithful"):
        trained_for(spec_of(tmp_path, "fastformer"))


def test_plaintext_of_ordinary_checkpoints_is_exact(tmp_path: Path) -> None:
    assert plaintext(spec_of(tmp_path / "a")) is EXACT
    assert plaintext(spec_of(tmp_path / "b", "puma")) is EXACT
    plain = plaintext(spec_of(tmp_path / "c", "mpcformer_2relu"))
    assert plain.gelu is MPCFORMER_2RELU.gelu and plain.softmax is plain_2relu


def test_refusals_name_the_checkpoint_and_the_way_out(tmp_path: Path) -> None:
    bare, student = spec_of(tmp_path / "a"), spec_of(tmp_path / "b", "secformer")
    with pytest.raises(SettingsError, match=r"^my/model is an ordinary checkpoint\. .*'mpcformer'.*secformer distill"):
        require(MPCFORMER, bare, "my/model")
    with pytest.raises(SettingsError, match=r"^my/model was distilled .* 'secformer'\. .*'faithful'.*'auto'"):
        require(FAITHFUL, student, "my/model")
    require(FAITHFUL, bare, "my/model")


# ---- functions that declare nothing ----------------------------------------------------------------------------------


def test_a_function_that_declares_nothing_is_tried() -> None:
    """One that comes near the exact function is believed; another one, as ReLU in GeLU's place, is not."""

    def near(s: Session, x: Share, at: Site) -> Share:
        return FAITHFUL.gelu(s, x, at) + 0.03

    def far(s: Session, scores: Share, values: Share, mask: np.ndarray, at: Site) -> Share:
        return s.matmul(scores, values)

    assert suits(replace(FAITHFUL, gelu=near), None) and tried(replace(FAITHFUL, gelu=near)) > 0.02
    for other in (replace(FAITHFUL, gelu=relu), replace(FAITHFUL, softmax=far), replace(PUMA, gelu=relu)):
        assert other.ordinary and not suits(other, None)
    stand_ins = {name for name, f in FURTHER.items() if suits(replace(FAITHFUL, gelu=f.protocol), None)}
    assert stand_ins == {"gelu_new", "quick_gelu"}, "5e-4 and 2e-2 off is near; SiLU is 0.2 off"
    assert all(tried(recipe) == 0.0 for recipe in RECIPES.values()), "the package's own functions declare themselves"


def test_a_further_activation_of_a_recipe_counts(tmp_path: Path) -> None:
    """A recipe's own SiLU is tried, or believed where it is declared; a student's is a student's."""

    def off(s: Session, x: Share, at: Site) -> Share:
        return SILU.protocol(s, x, at) + 0.2

    @student("half")
    def half(s: Session, x: Share, at: Site) -> Share:
        return x * 0.5

    def mine(base: Recipe, protocol: Any) -> Recipe:
        return replace(base, name="mine", others={SILU.name: protocol})

    assert suits(mine(FAITHFUL, SILU.protocol), None) and suits(FAITHFUL, None)
    assert not suits(mine(FAITHFUL, off), None) and not suits(mine(FAITHFUL, half), None)
    assert mine(FAITHFUL, half).trained_for == ("half",) and not mine(FAITHFUL, off).faithful
    assert not suits(mine(SECFORMER, half), SECFORMER), "it was trained with SiLU itself"


@pytest.mark.parametrize("design", DESIGNS.values(), ids=lambda r: r.name)
def test_a_student_with_another_activation(design: Recipe, tmp_path: Path) -> None:
    """Its softmax is the student's; its activation is the fitted one, also where the recipe has another GeLU."""
    folder = folder_of(tmp_path, hidden_act="quick_gelu", secformer=entry(design))
    close(twin(folder, TEXTS), twin(folder, TEXTS, recipe=replace(design, name="own", others={
        QUICK_GELU.name: QUICK_GELU.exact}), untrained_recipe=True), 1e-3)
