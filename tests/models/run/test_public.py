"""The public description of a model: it survives JSON, and an altered one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secformer.models.run.provisioning import CLIENT, ShareFile, share_file
from secformer.models.run.public import PUBLIC, PublicModel
from secformer.mpc.errors import ModelError


def test_the_description_survives_json(provisioned: Path) -> None:
    public = PublicModel.load(provisioned / CLIENT)
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
])
def test_an_altered_description_is_refused(provisioned: Path, tmp_path: Path, change: Any, said: str) -> None:
    facts = json.loads((provisioned / CLIENT / PUBLIC).read_text())
    change(facts)
    (tmp_path / PUBLIC).write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=said):
        PublicModel.load(tmp_path)
