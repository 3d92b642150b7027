"""Mistral: against transformers' own class, with windows that are shorter than texts, and without any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from decoders_lab import LONG, edited, saved
from families_lab import describes_itself, matches, tokens

from secformer.models.families.folder import ModelFolder
from secformer.models.families.mistral import Mistral
from secformer.models.ranges.profile import measure
from secformer.mpc.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", Mistral.classes)
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    folder, given = saved(tmp_path, name, sliding_window=4), tokens(longest=LONG)
    matches(folder, name, given, single=True, profile=measure(ModelFolder(folder), given))


@pytest.mark.parametrize("window", [1, 2, LONG - 1, LONG, 1000])
def test_windows_in_plaintext(window: int, tmp_path: Path) -> None:
    """A window counts the token itself."""
    name = "MistralForCausalLM"
    folder = saved(tmp_path, name, sliding_window=window)
    assert ModelFolder(folder).architecture.spec.windows == (window, window)
    matches(folder, name, tokens(longest=LONG), single=True, secure=False)


def test_no_window(tmp_path: Path) -> None:
    folder = edited(saved(tmp_path, "MistralModel"), {"sliding_window": None})
    assert ModelFolder(folder).architecture.spec.windows == (0, 0)
    matches(folder, "MistralModel", tokens(longest=LONG), single=True, secure=False)


def test_sites_results_and_facts(tmp_path: Path) -> None:
    describes_itself(saved(tmp_path, "MistralForCausalLM", sliding_window=3), ["the cat sat on the mat", "dog"])


@pytest.mark.parametrize("entries", [{"sliding_window": 0}, {"sliding_window": -3}], ids=str)
def test_windows_that_are_none(entries: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="sliding_window must be a positive integer"):
        ModelFolder(edited(saved(tmp_path, "MistralModel"), entries))
