"""The contract of a family, kept by one that the package does not know: all ways in which models run work with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import VOCAB
from toy_family import exact, write_toy

from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run.check import check
from secformer.models.run.comparison import compare
from secformer.models.run.local import SecureModel, plain_bert, secure_bert
from secformer.mpc.errors import InputError, ModelError
from secformer.protocols.recipes import FAITHFUL, PUMA

TEXTS = ["the cat sat on the mat", "dog", "a good film is not a bad film !"]
NEAR = 2e-3


@pytest.fixture
def toy(path: Path, tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy")


def ids_of(folder: Path, text: str) -> list[int]:
    return ModelFolder(folder).tokenizer.rows(text)[0].ids.tolist()


def test_in_process(toy: Path) -> None:
    out, plain = secure_bert(toy, TEXTS, backend="numpy"), plain_bert(toy, TEXTS)
    for i, text in enumerate(TEXTS):
        hidden, logits = exact(toy, ids_of(toy, text))
        np.testing.assert_allclose(plain.last_hidden_state[i, : len(hidden)], hidden, atol=1e-12)
        np.testing.assert_allclose(plain.logits[i], logits, atol=1e-12)
        np.testing.assert_allclose(out.last_hidden_state[i, : len(hidden)], hidden, atol=NEAR)
        np.testing.assert_allclose(out.logits[i], logits, atol=NEAR)
    assert out.labels == plain.labels and set(out.labels) <= {"no", "yes", "both"}


def test_without_a_head_and_with_the_clients_tables(path: Path, tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "encoder", "ToyModel", seed=4)
    with SecureModel.from_pretrained(folder, backend="numpy", embedding="client") as model:
        out = model(TEXTS)
    np.testing.assert_allclose(out.embeddings, plain_bert(folder, TEXTS).embeddings, atol=NEAR)


def test_profile_check_and_compare(toy: Path) -> None:
    profile = measure(ModelFolder(toy), TEXTS)
    assert tuple(profile.sites) == ("gelu", "relu", "norm")
    profile.save(toy / FILE)
    assert check(toy, TEXTS).ok
    narrow = check(toy, TEXTS, profile=measure(ModelFolder(toy), "dog", margin=1.0))
    assert not narrow.ok and narrow.violations[0].site in profile.sites
    compared = compare(toy, TEXTS, [FAITHFUL, PUMA], backend="numpy", runs=1)
    assert [(row.recipe, row.problem, row.agreement) for row in compared.rows] == [
        ("faithful", "", 1.0), ("puma", "", 1.0)]


def test_served(toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    from secformer import connect
    from secformer.roles.trial import LocalRoles

    with LocalRoles(tmp_path / "served", toy) as roles:
        roles.wait_ready()
        with connect(roles.settings("client")) as model:
            out = model.infer(TEXTS)
    plain = plain_bert(toy, TEXTS)
    np.testing.assert_allclose(out.logits, plain.logits, atol=NEAR)
    assert out.labels == plain.labels


def test_bad_input_is_refused_by_its_own_limits(toy: Path) -> None:
    with pytest.raises(InputError, match=rf"0\.\.{len(VOCAB) - 1}"):
        secure_bert(toy, {"input_ids": [[len(VOCAB)]]}, backend="numpy")
    with pytest.raises(InputError, match="at most 24"):
        secure_bert(toy, "cat " * 30, backend="numpy")
    with pytest.raises(InputError, match=r"token_type_ids must lie in 0\.\.0"):
        secure_bert(toy, {"input_ids": [[2]], "token_type_ids": [[1]]}, backend="numpy")


def test_training_says_that_it_cannot(toy: Path) -> None:
    with pytest.raises(ModelError, match=r"'toy_mlp'.*not trained here"):
        _ = ModelFolder(toy).architecture.classifier(("a", "b"))
