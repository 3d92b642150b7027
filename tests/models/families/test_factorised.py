"""What families with embeddings of their own size have in common; ELECTRA and ALBERT hold the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from families_lab import save

from secformer.models.distill.student import check_fit
from secformer.models.families.factorised import PROJECTION, Factorised
from secformer.models.families.folder import ModelFolder
from secformer.mpc.errors import ModelError

SIZES = {"hidden_size": 6, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 5,
         "max_position_embeddings": 9}


@pytest.mark.parametrize(("name", "always"), [("Electra", False), ("Albert", True)])
def test_the_projection_is_there_where_the_family_has_it(name: str, always: bool, tmp_path: Path) -> None:
    for size in (4, 6):
        folder = ModelFolder(save(tmp_path / str(size), f"{name}Model", embedding_size=size, **SIZES))
        assert folder.architecture.inputs.hidden == size and folder.architecture.hidden_size == 6
        assert isinstance(folder.architecture, Factorised)
        assert (f"{PROJECTION}.weight" in folder.architecture.weights()) == (always or size != 6)
        assert folder.architecture.tables()["embedding.positions"].shape == (9, size)


def test_a_student_has_its_teachers_embedding_size(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    name = "ElectraForSequenceClassification"
    mine, theirs = (ModelFolder(save(tmp_path / str(n), name, embedding_size=n, **SIZES)) for n in (4, 5))
    with pytest.raises(ModelError, match=r"has embedding size 4, but its teacher .* has 5"):
        check_fit(mine, theirs)
