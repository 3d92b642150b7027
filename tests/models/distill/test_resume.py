"""Training that goes on: with the same settings only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training_lab import DEV, INNER, TASK, TRAIN, Stop, interrupted_after, quiet

from secformer.models.distill.stage import Stage
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import SettingsError
from secformer.protocols.recipes import MPCFORMER, SECFORMER

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill.resume import State, TrainingRun  # noqa: E402
from secformer.models.distill.student import distill  # noqa: E402


def test_other_settings_do_not_go_on(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, tmp_path, inner=INNER, tell=interrupted_after(0))
    with pytest.raises(SettingsError, match=r"other settings \(differing: design, stages\)"):
        distill(ModelFolder(teacher), MPCFORMER, TASK, TRAIN, DEV, tmp_path, inner=replace(INNER, rate=1.0), tell=quiet)


STAGE = Stage("inner", rate=1e-3, epochs=1)
FACTS = {"model": "abc", "stages": [{"rate": 1e-3, "words": (1, 2)}]}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    training = TrainingRun(tmp_path / "training", FACTS)
    state = State(7, 0.75, 6, 1, False, [{"step": 6, "loss": 0.5, "metric": 0.75}])
    tensors = {"now/a": torch.arange(6.0).reshape(2, 3).T, "step/a": torch.tensor(7.0)}
    training.save(STAGE, state, tensors)
    found, read = TrainingRun(tmp_path / "training", FACTS).load(STAGE)
    assert found == state and set(read) == set(tensors)
    assert all(torch.equal(read[name], t) for name, t in tensors.items())
    assert not list(tmp_path.rglob("*.part")), "files appear whole or not at all"


def test_a_stage_that_has_not_begun(tmp_path: Path) -> None:
    training = TrainingRun(tmp_path, FACTS)
    training.save(STAGE, State(step=3), {})
    state, tensors = training.load(Stage("logits", rate=1e-3, epochs=1))
    assert state == State() and not tensors and state.best == float("-inf") and state.history == []


def test_a_state_of_no_check_yet_survives_json(tmp_path: Path) -> None:
    """Its best metric is minus infinity."""
    training = TrainingRun(tmp_path, FACTS)
    training.save(STAGE, State(step=3), {"a": torch.zeros(1)})
    assert training.load(STAGE)[0] == State(step=3)


def test_finished_training_keeps_curves_and_settings(tmp_path: Path) -> None:
    training = TrainingRun(tmp_path, FACTS)
    for stage in (STAGE, Stage("logits", rate=1e-3, epochs=1)):
        training.save(stage, State(done=True), {"a": torch.zeros(1)})
    training.finish({"accuracy": 0.5})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["facts.json", "inner.json", "logits.json", "result.json"]
    assert json.loads((tmp_path / "result.json").read_text()) == {"accuracy": 0.5}


@pytest.mark.parametrize(("change", "differing"), [({"model": "x"}, "model"), ({"texts": 3}, "texts"),
                                                   ({"stages": [], "model": ""}, "model, stages")])
def test_facts_that_differ_are_named(change: dict[str, Any], differing: str, tmp_path: Path) -> None:
    TrainingRun(tmp_path, FACTS)
    TrainingRun(tmp_path, FACTS)
    with pytest.raises(SettingsError, match=rf"\(differing: {differing}\)"):
        TrainingRun(tmp_path, FACTS | change)
    TrainingRun(tmp_path, FACTS)  # what was refused has changed nothing
    with pytest.raises(SettingsError, match=r"\(differing: model\)"):
        TrainingRun(tmp_path, {k: v for k, v in FACTS.items() if k != "model"})
