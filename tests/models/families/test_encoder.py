"""What encoders have in common, on BERT: every class against transformers' own, and what the base offers to families.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import SIZES
from families_lab import matches, save, tokens

from secformer.models.families.bert import Bert
from secformer.models.families.encoder_facts import HEADS, classes
from secformer.models.families.folder import ModelFolder
from secformer.models.families.heads import Head
from secformer.models.ranges.profile import measure

ODD: dict[str, Any] = SIZES | {"hidden_size": 15, "num_attention_heads": 5, "intermediate_size": 17, "vocab_size": 39}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, head in Bert.classes.items() if head in HEADS.values()])
def test_every_class_against_transformers(name: str, tmp_path: Path) -> None:
    matches(save(tmp_path, name, **ODD), name, tokens(segments=2))


@pytest.mark.filterwarnings("ignore")
def test_outlier_channels_and_sharp_attention(tmp_path: Path) -> None:
    matches(save(tmp_path, "BertModel", outlier=20.0, sharp=3.0, **ODD), "BertModel", tokens(segments=2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False])
def test_of_two_biases_the_decoders_own_counts(tied: bool, tmp_path: Path) -> None:
    """Also where the config says that both are one, as transformers does where they differ."""
    from safetensors.numpy import load_file, save_file

    folder = save(tmp_path, "BertForMaskedLM", tie_word_embeddings=tied, **ODD)
    stored = load_file(folder / "model.safetensors")
    stored["cls.predictions.decoder.bias"] = stored["cls.predictions.bias"] + 1
    save_file(stored, str(folder / "model.safetensors"), {"format": "pt"})
    matches(folder, "BertForMaskedLM", tokens(segments=2), secure=False)


def test_names_of_classes() -> None:
    assert classes("Some")["SomeForMaskedLM"] is Head.MASKED and classes("Some")["SomeModel"] is Head.ENCODER


class Shared(Bert):
    """A family whose layers all run with the tensors of the first."""

    def stored(self, i: int) -> int:
        return 0


@pytest.mark.filterwarnings("ignore")
def test_layers_that_share_their_tensors_are_stored_once_and_measured_each(tmp_path: Path) -> None:
    folder = ModelFolder(save(tmp_path, "BertModel", **ODD))
    folder.architecture = Shared(replace(folder.architecture.spec, layers=3))
    layout = folder.architecture.weights()
    assert {name.split(".")[1] for name in layout if name.startswith("layer.")} == {"0"}
    profile = measure(folder, ["the cat sat", "dog"])
    assert "layer.2.softmax" in profile.sites and tuple(profile.sites) == folder.architecture.sites
