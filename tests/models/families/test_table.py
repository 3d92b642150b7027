"""The table of families: its own, those of installed packages, and descriptions of either."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint
from families_lab import LENGTHS, expected, lengthy, tiny
from toy_family import Toy, write_toy

from secformer.models.data.batch import batches
from secformer.models.families.architecture import Architecture
from secformer.models.families.bert import Bert
from secformer.models.families.config import FILE, read_config
from secformer.models.families.decoder import Decoder
from secformer.models.families.folder import ModelFolder
from secformer.models.families.table import FAMILIES, architecture_from, architecture_of
from secformer.models.ranges.profile import measure
from secformer.models.run.local import SecureModel, plain_bert
from secformer.mpc.errors import ModelError


def test_the_package_does_not_know_it(tmp_path: Path) -> None:
    assert Toy.model_type not in FAMILIES
    with pytest.raises(ModelError, match=r"'toy_mlp'.*Supported: .*type 'bert'"):
        ModelFolder(write_toy(tmp_path))


@pytest.mark.parametrize(("value", "words"), [("no_such_module:Toy", "cannot be imported"),
                                              ("toy_family:write_toy", "not a subclass of Architecture")])
def test_a_broken_family_names_itself(path: Path, tmp_path: Path, value: str, words: str) -> None:
    (path / "toy_family-1.0.dist-info" / "entry_points.txt").write_text(
        f"[secformer.families]\n{Toy.model_type} = {value}\n", "utf-8")
    with pytest.raises(ModelError, match=rf"'toy_mlp'.*{words}"):
        ModelFolder(write_toy(tmp_path / "toy"))


def test_an_installed_family_cannot_replace_one_of_the_package(path: Path, tmp_path: Path) -> None:
    (path / "toy_family-1.0.dist-info" / "entry_points.txt").write_text(
        "[secformer.families]\nbert = toy_family:Toy\n", "utf-8")
    assert isinstance(ModelFolder(write_checkpoint(tmp_path / "bert")).architecture, Bert)
    (path / "toy_family-1.0.dist-info" / "entry_points.txt").write_text(
        "[secformer.families]\nbert = no_such_module:Bert\n", "utf-8")
    with pytest.raises(ModelError, match=r"Supported: (?!.*an installed package)"):  # nor is it even imported
        ModelFolder(write_toy(tmp_path / "toy"))


# ---- descriptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "architecture"), [(f, name) for f in FAMILIES.values() for name in f.classes])
def test_a_description_is_read_by_the_family_that_wrote_it(family: type[Architecture], architecture: str,
                                                           tmp_path: Path) -> None:
    """Every fact is in it: what `transformers` fills in for a config that says nothing comes back as it was."""
    entries = {"model_type": family.model_type, "architectures": [architecture]}
    (tmp_path / FILE).write_text(json.dumps(entries), "utf-8")
    own = architecture_of(read_config(tmp_path))
    assert type(own) is family and own.spec.architecture == architecture
    back = architecture_from(family.model_type, json.loads(json.dumps(own.facts())))
    assert back == own and back.sites == own.sites and back.inputs == own.inputs
    assert back.weights() == own.weights() and back.tables() == own.tables()


def test_a_description_of_an_installed_family(path: Path, tmp_path: Path) -> None:
    """Roles read it so; it needs the package there, too."""
    own = ModelFolder(write_toy(tmp_path / "toy")).architecture
    found = architecture_from(own.model_type, json.loads(json.dumps(own.facts())))
    assert found == own and found.model_type == Toy.model_type


def test_descriptions_that_nothing_runs(tmp_path: Path) -> None:
    facts = architecture_of(read_config(write_checkpoint(tmp_path))).facts()
    with pytest.raises(ModelError, match=r"type 'gptj', which no family here runs; install the package"):
        architecture_from("gptj", facts)
    with pytest.raises(ValueError, match="'bert' does not run the architecture 'GPT2LMHeadModel'"):
        architecture_from("bert", facts | {"architecture": "GPT2LMHeadModel"})
    with pytest.raises(KeyError, match="architecture"):
        architecture_from("bert", {})
    with pytest.raises(TypeError, match="rotary"):
        architecture_from("bert", facts | {"rotary": True})
    with pytest.raises(TypeError, match="vocab"):
        architecture_from("bert", {k: v for k, v in facts.items() if k != "vocab"})


def test_no_family_is_imported_but_the_one_that_is_asked_for(path: Path, tmp_path: Path) -> None:
    """A broken package neither hides what is wrong with a checkpoint nor keeps other families from running."""
    points = path / "toy_family-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text("utf-8") + "broken = no_such_module:Broken\n", "utf-8")
    folder = write_toy(tmp_path / "toy")
    assert isinstance(ModelFolder(folder).architecture, Toy)
    (folder / "config.json").write_text('{"model_type": "gptj", "architectures": ["GPTJModel"]}', "utf-8")
    with pytest.raises(ModelError, match=r"'gptj'.*'bert'.*'broken' \(an installed.*; type 'toy_mlp'"):
        ModelFolder(folder)


def test_of_several_classes_the_first_that_runs_is_taken(tmp_path: Path) -> None:
    names = ["BertForMultipleChoice", "BertForTokenClassification", "BertModel"]
    folder = write_checkpoint(tmp_path, "BertForTokenClassification", architectures=names)
    assert architecture_of(read_config(folder)).spec.architecture == "BertForTokenClassification"


def test_every_family_of_the_package_is_under_its_own_type() -> None:
    assert {name: family.model_type for name, family in FAMILIES.items()} == {name: name for name in FAMILIES}
    classes = [name for family in FAMILIES.values() for name in family.classes]
    assert len(set(classes)) == len(classes), "a class belongs to one family"
    with pytest.raises(TypeError):
        FAMILIES["other"] = Bert  # type: ignore[index]


# ---- texts of several lengths in one batch ---------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_text_has_the_answer_that_it_has_alone(family: type[Architecture], tmp_path: Path) -> None:
    """Padded, in a batch with others: as transformers answers each text by itself, and without padding behind it."""
    name, folder = tiny(tmp_path, family)
    given = lengthy(folder.architecture.inputs)
    ((_, batch),) = batches(folder.tokenizer.rows(given), 4096)
    assert batch.padded and batch.size == len(LENGTHS)
    alone = [expected(tmp_path, name, {key: rows[i : i + 1, :size] for key, rows in given.items()},
                      single=family.model_type == "modernbert" or issubclass(family, Decoder))["last_hidden_state"][0]
             for i, size in enumerate(LENGTHS)]
    plain = plain_bert(tmp_path, given)
    with SecureModel.from_pretrained(tmp_path, backend="numpy", profile=measure(folder, given)) as model:
        out = model(given)
    assert out.trusted is not None and out.trusted.all(), out.notes
    top = max(np.abs(each).max() for each in alone)
    for i, wanted in enumerate(alone):
        for found, tolerance in ((plain, 1e-5), (out, 1e-3)):
            np.testing.assert_allclose(found.last_hidden_state[i, : len(wanted)], wanted, rtol=0, atol=tolerance * top)
