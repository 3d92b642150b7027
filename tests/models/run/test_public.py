"""The public description of a model: it survives JSON, and an altered one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_family import write_toy

from secformer import demo_model
from secformer.models.run.provisioning import write_shares
from secformer.models.run.public import CLIENT_FOLDER, PUBLIC, PublicModel
from secformer.models.run.share_file import ShareFile, share_file
from secformer.mpc.errors import ModelError


def test_the_description_survives_json(provisioned: Path) -> None:
    public = PublicModel.load(provisioned / CLIENT_FOLDER)
    assert PublicModel.from_json(public.to_json(), "here") == public
    assert all(ShareFile(provisioned / share_file(r)).public == public for r in (0, 1))


@pytest.mark.parametrize(("change", "said"), [
    (lambda f: f.pop("spec"), "spec"),
    (lambda f: f.update(format="secformer model 0"), "format"),
    (lambda f: f.update(recipe="nonsense"), "nonsense"),
    (lambda f: f.update(frac=15), "digest"),
    (lambda f: f["series"][0][1].__setitem__(0, 0.25), "digest"),
    (lambda f: f.update(series=[[1]]), "unpack"),
    (lambda f: f["books"]["2"].__setitem__(0, 99), "IndexError"),
    (lambda f: f.update(names=None), "TypeError"),
    (lambda f: f["spec"].update(heads=".."), "heads must be of type int, got str"),
    (lambda f: f["spec"].update(layers=True), "layers must be of type int, got bool"),
    (lambda f: f.update(width=10**400, frac=1e300), "1e.300"),
])
def test_an_altered_description_is_refused(provisioned: Path, tmp_path: Path, change: Any, said: str) -> None:
    facts = json.loads((provisioned / CLIENT_FOLDER / PUBLIC).read_text())
    change(facts)
    (tmp_path / PUBLIC).write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=said):
        PublicModel.load(tmp_path)


def test_a_description_names_its_family_unless_it_is_berts(path: Path, tmp_path: Path) -> None:
    """BERT's descriptions are older than families: they name none, and keep their digests."""
    toy = write_shares(write_toy(tmp_path / "toy"), tmp_path / "shares")
    facts = json.loads(toy.to_json())
    assert facts["family"] == "toy_mlp" and PublicModel.from_json(toy.to_json(), "here") == toy
    assert "family" not in json.loads(write_shares(demo_model(), tmp_path / "bert").to_json())
    with pytest.raises(ModelError, match="'other', which no family here runs"):
        PublicModel.from_json(json.dumps(facts | {"family": "other"}), "here")
    del facts["family"]
    with pytest.raises(ModelError, match="'bert' does not run"):
        PublicModel.from_json(json.dumps(facts), "here")
