"""Which cells hold the same model: every difference that matters is told. Cost: less than one second."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cells_lab import client_file, clients_model
from checkpoints import write_checkpoint

from secformer.cells.alike import Named, architecture_traits, differences, model_traits, require_alike, traits_of
from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import CLIENT_FOLDER, PublicModel
from secformer.models.run.tables import FILE
from secformer.mpc.errors import ModelError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.recipes import recipe_named
from secformer.roles.settings import ClientSettings, load_client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> ClientSettings:
    folder = tmp_path_factory.mktemp("alike")
    clients_model(folder / "model")
    return load_client(client_file(folder, (1, 2)))


def test_digests_and_salt_may_differ(client: ClientSettings) -> None:
    """As where each cell was provisioned by itself; `test_served_cells.py` has two such cells."""
    public = PublicModel.load(client.model)
    other = replace(public, salt="ab" * 32, profile=replace(public.profile, model="cd" * 32), notes=("a note",))
    assert public.digest != other.digest
    named = [("a", traits_of(client)), ("b", model_traits(other, client))]
    assert differences(*named) == []
    require_alike(named, "")
    require_alike(named[:1], "")
    assert architecture_traits(public.architecture, False).items() <= named[0][1].items()


@pytest.mark.parametrize(("change", "says"), [
    (lambda m: replace(m, recipe=recipe_named("secformer")), 'recipe: "faithful" at a, "secformer" at b'),
    (lambda m: replace(m, fixed=FixedPoint(m.fixed.frac - 1, m.fixed.magnitude)), "fractional bits: 16 at a, 15 at b"),
    (lambda m: replace(m, fixed=FixedPoint(m.fixed.frac, m.fixed.magnitude - 1)), "magnitude: "),
    (lambda m: replace(m, width=m.width - 1), "bits per word: "),
    (lambda m: replace(m, names=tuple(n for n in m.names if n != "guard")), "guard: true at a, false at b"),
    (lambda m: replace(m, names=m.names[::-1]), "results: "),
    (lambda m: replace(m, private=True), 'embedding: "client" at a, "private" at b'),
    (lambda m: replace(m, steps={3: ()}), "generates up to: 0 at a, 8 at b"),
    (lambda m: replace(m, profile=replace(m.profile, sites={})), "range profile: sites: "),
    (lambda m: replace(m, profile=replace(m.profile, margin=m.profile.margin + 1)), "range profile: margin: "),
    (lambda m: replace(m, architecture=replace(m.architecture, spec=replace(m.architecture.spec, layers=2))),
     "architecture: layers: 1 at a, 2 at b")], ids=lambda value: value if isinstance(value, str) else "")
def test_what_identifies_the_model(client: ClientSettings,
                                   change: Callable[[PublicModel], PublicModel], says: str) -> None:
    public = PublicModel.load(client.model)
    cells: list[Named] = [("a", model_traits(public, client)), ("b", model_traits(change(public), client))]
    with pytest.raises(ModelError) as error:
        require_alike(cells, "Do so.")
    assert says in str(error.value) and str(error.value).startswith("the cells a and b hold different models")
    assert str(error.value).endswith(". Do so.")


def test_texts_must_be_read_alike(client: ClientSettings, tmp_path: Path) -> None:
    """Each cell's texts are tokenised with the files of one of them."""
    own = ("a", traits_of(client))
    cut = ("b", traits_of(replace(client, truncation=True)))
    assert differences(own, cut) == ["truncation: false at a, true at b"]
    other = tmp_path / "model"
    shutil.copytree(client.model, other)
    name = "vocab.txt"
    with (other / name).open("ab") as file:
        file.write(b"\n")
    changed = ("b", traits_of(replace(client, model=other)))
    assert [each.split(":")[0] for each in differences(own, changed)] == [f"file {name}"]
    (other / name).unlink()
    gone = ("b", traits_of(replace(client, model=other)))
    assert differences(own, gone)[0].endswith(", none at b")


def test_many_differences_are_counted(client: ClientSettings) -> None:
    own = traits_of(client)
    with pytest.raises(ModelError, match=f"; and {len(own) - 4} more. Do so"):
        require_alike([("a", own), ("c", own), ("b", dict.fromkeys(own, "x"))], "Do so.")


def test_folders_that_cannot_be_read(client: ClientSettings, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="secformer provision"):
        traits_of(replace(client, model=tmp_path))


def test_tables_of_two_provisionings_are_alike_if_their_numbers_are(tmp_path: Path) -> None:
    traits = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model = write_checkpoint(tmp_path / name / "checkpoint", "BertForSequenceClassification", seed=seed)
        write_shares(model, tmp_path / name / "shares", embedding="client")
        (tmp_path / name / "shares" / CLIENT_FOLDER).rename(tmp_path / name / "model")
        traits.append((name, traits_of(load_client(client_file(tmp_path / name, (1, 2))))))
    require_alike(traits[:2], "")
    assert any(f"file {FILE}" in told for told in differences(traits[0], traits[2]))
    (tmp_path / "a" / "model" / FILE).write_bytes(b"no tables")
    with pytest.raises(ModelError, match=f"{FILE} cannot be read"):
        traits_of(load_client(tmp_path / "a" / "client.toml"))
