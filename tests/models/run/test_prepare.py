"""What a run goes by: recipe, profile, results; refused before anything is shared where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import config, tensors
from runs_lab import ANY, CPU, TEXTS, close, folder_of

from secformer.models.data.tensors import TABLE
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import GUARD
from secformer.models.ranges.profile import FILE, RangeProfile, measure
from secformer.models.run.local import PlainModel, SecureModel, plain_bert, secure_bert
from secformer.models.run.options import Settings
from secformer.models.run.prepare import (
    OUTDATED,
    UNMEASURED,
    choose_profile,
    choose_recipe,
    look_up_note,
    prepare,
    result_names,
)
from secformer.mpc.errors import ModelError, RangeError, SettingsError
from secformer.protocols.ranges import Range
from secformer.protocols.recipes import EXACT, FAITHFUL, MPCFORMER, PUMA, SECFORMER


def test_the_checkpoint_names_its_recipe(tmp_path: Path) -> None:
    model = PlainModel.from_pretrained(folder_of(tmp_path, secformer={"recipe": "secformer"}))
    assert model.recipe is SECFORMER
    other = PlainModel.from_pretrained(tmp_path, recipe="faithful", untrained_recipe=True)
    assert other.recipe is FAITHFUL


def test_profile_of_other_weights_is_refused(encoder: Path, tmp_path: Path) -> None:
    path = folder_of(tmp_path, seed=8)
    with pytest.raises(ModelError, match="other weights"):
        secure_bert(path, "cat", profile=encoder / FILE, **CPU)
    with pytest.raises(ModelError, match="cannot read the range profile"):
        secure_bert(path, "cat", profile=tmp_path / "none.json", **CPU)


def test_profile_of_another_recipe(encoder: Path) -> None:
    with pytest.raises(ModelError, match="'exact' functions"):
        secure_bert(encoder, "cat", profile=encoder / FILE, recipe="secformer", **ANY)
    out = secure_bert(encoder, "cat", recipe="secformer", **ANY)
    assert out.profile_source == "measured at load from built-in texts"


def test_given_profiles(encoder: Path) -> None:
    profile = measure(ModelFolder(encoder), TEXTS, margin=2.0)
    out = secure_bert(encoder, TEXTS, profile=profile, **CPU)
    close(out, plain_bert(encoder, TEXTS), 2e-2)
    assert out.profile_source == "given"


def test_a_format_that_a_recipe_does_not_fit_is_refused_before_anything_is_shared(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared(*_: Any) -> None:
        raise AssertionError("weights were shared")

    monkeypatch.setattr(SecureModel, "provision", shared)
    measured = RangeProfile.load(encoder / FILE)
    site = "layer.0.softmax"
    wide = replace(measured, sites={**measured.sites, site: {**measured.sites[site], "value": Range(-1e12, 1e12)}})
    with pytest.raises(RangeError, match=r"layer\.0.*attention's values reach"):
        SecureModel.from_pretrained(encoder, profile=wide, **CPU)


# ---- what is chosen --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(encoder: Path) -> ModelFolder:
    """The encoder, whose profile of exact functions lies beside it."""
    return ModelFolder(encoder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A classifier without a profile."""
    return ModelFolder(folder_of(tmp_path_factory.mktemp("bare"), "BertForSequenceClassification"))


FIXED = Settings().fixed


def test_the_profile_beside_the_checkpoint_is_taken(folder: ModelFolder) -> None:
    profile, source, notes = choose_profile(None, folder, FAITHFUL, FIXED)
    assert profile == RangeProfile.load(folder.path / FILE)
    assert (source, notes) == (str(folder.path / FILE), [])


def test_a_given_profile_is_taken_instead(folder: ModelFolder, tmp_path: Path) -> None:
    own = measure(folder, "cat", margin=3.0)
    own.save(tmp_path / "own.json")
    assert choose_profile(own, folder, FAITHFUL, FIXED) == (own, "given", [])
    assert choose_profile(tmp_path / "own.json", folder, FAITHFUL, FIXED) == (own, str(tmp_path / "own.json"), [])


def test_a_profile_is_measured_where_none_suits(folder: ModelFolder, bare: ModelFolder) -> None:
    for model, recipe, design in ((bare, FAITHFUL, "exact"), (folder, SECFORMER, "secformer")):
        profile, source, notes = choose_profile(None, model, recipe, FIXED)
        assert profile is not None and (profile.design, profile.model) == (design, model.digest)
        assert source == "measured at load from built-in texts" and notes == [UNMEASURED]


def test_exact_functions_take_no_profile(folder: ModelFolder) -> None:
    for given in (None, measure(folder, "cat")):
        assert choose_profile(given, folder, EXACT, FIXED) == (None, "none: exact functions take no ranges", [])


def test_recipes_are_chosen_by_name_by_value_and_by_checkpoint(folder: ModelFolder, tmp_path: Path) -> None:
    student = ModelFolder(folder_of(tmp_path, secformer={"recipe": "mpcformer"}))
    assert choose_recipe("auto", folder) is FAITHFUL and choose_recipe("auto", student) is MPCFORMER
    mine = replace(FAITHFUL, name="mine")
    assert choose_recipe(mine, folder) is mine and choose_recipe("puma", folder) is PUMA
    with pytest.raises(SettingsError, match="untrained_recipe=True"):
        choose_recipe("mpcformer", folder)
    assert choose_recipe("mpcformer", folder, untrained=True) is MPCFORMER
    with pytest.raises(SettingsError, match="a Recipe or its name, got int"):
        choose_recipe(3, folder)  # type: ignore[arg-type]


def test_the_results_that_are_revealed(folder: ModelFolder, bare: ModelFolder) -> None:
    auto, head = Settings(), Settings(output="head")
    assert result_names(folder.architecture, auto) == ("last_hidden_state", "pooler_output", GUARD)
    assert result_names(bare.architecture, auto) == ("last_hidden_state", "pooler_output", "logits", GUARD)
    assert result_names(bare.architecture, head) == ("logits", GUARD)
    with pytest.raises(SettingsError, match="BertModel answers with hidden states, so use output='auto'"):
        result_names(folder.architecture, head)


@pytest.mark.parametrize(("embedding", "tables"), [("private", {TABLE, "embedding.positions"}), ("client", set())])
def test_tables_are_shared_for_private_look_ups_only(folder: ModelFolder, embedding: str, tables: set[str]) -> None:
    prepared = prepare(folder, "auto", None, Settings(embedding=embedding), on_shares=True)
    assert set(prepared.layout) - set(folder.architecture.weights()) == tables
    assert prepared.recipe is FAITHFUL and prepared.architecture is folder.architecture
    assert prepared.names == ("last_hidden_state", "pooler_output", GUARD) and prepared.notes == ()


def test_a_large_vocabulary_gets_a_note(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what a private look-up costs, and what avoids it; nothing is refused."""
    folder = ModelFolder(encoder)
    words = folder.architecture.inputs.words
    monkeypatch.setattr("secformer.models.run.prepare.MANY", words)
    assert prepare(folder, FAITHFUL, None, Settings(), on_shares=True).notes == ()
    monkeypatch.setattr("secformer.models.run.prepare.MANY", words - 1)
    (note,) = prepare(folder, FAITHFUL, None, Settings(), on_shares=True).notes
    assert note == (f"the vocabulary has {words} words, so to keep a token's id secret costs 0.0 MB of traffic in each "
                    f"direction between the parties; embedding='client' avoids that, and gives the embedding tables, "
                    f"which are a part of the weights, to every client")
    for settings, shared in ((Settings(embedding="client"), True), (Settings(), False)):
        assert prepare(folder, FAITHFUL, None, settings, on_shares=shared).notes == ()


def test_the_note_counts_a_row_at_its_width(encoder: Path) -> None:
    """The figure is what the plan counts: 250,002 words and a segment at three bytes each are 0.75 MB."""
    inputs = replace(ModelFolder(encoder).architecture.inputs, words=250_002, segments=1)
    assert "250,002 words" in look_up_note(inputs, 24)[0] and "costs 0.8 MB" in look_up_note(inputs, 24)[0]
    assert "costs 1.0 MB" in look_up_note(inputs, 32)[0] and look_up_note(replace(inputs, words=65_000), 24) == []


def test_notes_of_the_folder_and_of_the_profile_are_kept(tmp_path: Path) -> None:
    found = tensors(config()) | {"cls.seq_relationship.weight": np.zeros((2, 12), np.float32)}
    prepared = prepare(ModelFolder(folder_of(tmp_path, weights=found)), "auto", None, Settings(), on_shares=False)
    unused, unmeasured = prepared.notes
    assert "seq_relationship" in unused and unmeasured == UNMEASURED


def test_exact_functions_do_not_run_on_shares(folder: ModelFolder) -> None:
    assert prepare(folder, EXACT, None, Settings(), on_shares=False).profile is None
    with pytest.raises(SettingsError, match="'exact' is the plaintext reference and cannot run on shares"):
        prepare(folder, EXACT, None, Settings(), on_shares=True)


@pytest.mark.parametrize("version, lacks", [(1, ("gain", "row_sum")), (2, ("row_sum",))])
def test_profiles_of_an_earlier_version(tmp_path: Path, version: int, lacks: tuple[str, ...]) -> None:
    """Beside a checkpoint, one is measured again, and a note says so; one that is given is refused."""
    folder = ModelFolder(folder_of(tmp_path))
    facts = measure(folder, TEXTS).as_dict() | {"format": version}
    facts["sites"] = {site: {name: r for name, r in found.items() if name not in lacks}
                      for site, found in facts["sites"].items()}
    (tmp_path / FILE).write_text(json.dumps(facts), "utf-8")
    profile, source, notes = choose_profile(None, folder, FAITHFUL, FIXED)
    assert profile is not None and {*lacks} <= set(profile.sites["embedding.layernorm"])
    assert source == "measured at load from built-in texts" and notes == [OUTDATED]
    with pytest.raises(ModelError, match=rf"format {version} of an earlier version.*secformer profile"):
        choose_profile(tmp_path / FILE, folder, FAITHFUL, FIXED)
    with pytest.raises(ModelError, match=rf"format {version} of an earlier version.*secformer provision"):
        RangeProfile.of(facts, "public.json")
