"""A student scored in plaintext and on shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_lab import DEV, TASK

from secformer.models.distill.evaluate import evaluate
from secformer.models.ranges.profile import FILE
from secformer.models.run.local import secure_bert
from secformer.mpc.errors import SettingsError


def test_a_student_knows_its_recipe_and_ranges(student: Path) -> None:
    config = json.loads((student / "config.json").read_text())
    assert config["secformer"] == {"recipe": "secformer", "constants": {"quad_shift": 5.0}}
    assert (student / FILE).is_file()
    found = evaluate(student, TASK, DEV, secure=True, backend="numpy")
    assert found.recipe == "secformer" and found.secure is not None
    assert found.secure["accuracy"] > 0.9 and found.agreement == 1.0
    assert found.error is not None and found.error < 2e-2
    assert found.cost is not None and not found.notes  # the profile beside the checkpoint was used
    with pytest.raises(SettingsError, match="distilled for the functions of 'secformer'"):
        secure_bert(student, "a good film", recipe="faithful")


def test_evaluation_without_the_secure_run(student: Path) -> None:
    found = evaluate(student, TASK, DEV)
    assert found.secure is found.agreement is found.cost is None
    assert json.loads(json.dumps(found.as_dict()))["plain"] == found.plain
