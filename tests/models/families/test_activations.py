"""Every activation that config files name, in models of odd sizes, against transformers' own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint

from secformer.models.families.activations import FURTHER, GELU, NAMES
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.local import SecureModel, plain_bert, twin
from secformer.mpc.errors import ModelError
from secformer.protocols.recipes import FAITHFUL, PUMA

TOKENS = {"input_ids": np.array([[2, 5, 7, 9, 3, 6, 3], [2, 13, 3, 0, 0, 0, 0]]),
          "attention_mask": np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])}
ODD = {"hidden_size": 9, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 17}
KINDS = ("relu", "silu", "gelu_new", "quick_gelu")
THERE = TOKENS["attention_mask"].astype(bool)


def folder(path: Path, act: str, architecture: str = "BertForMaskedLM", scale: float = 0.6) -> Path:
    return write_checkpoint(path, architecture, seed=3, scale=scale, prefix="bert.", hidden_act=act, **ODD)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("act", NAMES)
def test_against_transformers(act: str, tmp_path: Path) -> None:
    """The head's transform has the activation, too."""
    torch = pytest.importorskip("torch")
    from transformers import BertForMaskedLM
    from transformers.activations import ACT2FN

    if act not in ACT2FN:
        pytest.skip(f"this version of transformers has no {act}")
    model = BertForMaskedLM.from_pretrained(str(folder(tmp_path, act))).double().eval()
    with torch.no_grad():
        expected = model(**{k: torch.from_numpy(v) for k, v in TOKENS.items()}).logits.numpy()
    exact, approximate = plain_bert(tmp_path, TOKENS).logits, twin(tmp_path, TOKENS).logits
    np.testing.assert_allclose(exact[THERE], expected[THERE], rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(approximate[THERE], expected[THERE], rtol=0.0, atol=1e-3)


@pytest.mark.parametrize("act", KINDS)
def test_on_shares(act: str, tmp_path: Path) -> None:
    with SecureModel.from_pretrained(folder(tmp_path, act), backend="numpy") as model:
        found = model(TOKENS)
    np.testing.assert_allclose(found.logits, plain_bert(tmp_path, TOKENS).logits, rtol=0.0, atol=3e-3)
    assert found.cost is not None and found.cost.by_kind()[act].rounds > 0 and "gelu" not in found.cost.by_kind()


def test_the_sites_are_named_by_it(tmp_path: Path) -> None:
    """And GeLU's keep the names that stored profiles have."""
    for act in (GELU, *FURTHER):
        opened = ModelFolder(folder(tmp_path / act, act))
        assert f"layer.0.{act}" in opened.architecture.sites and f"head.{act}" in opened.architecture.sites
        profile = measure(opened, TOKENS)
        assert tuple(profile.sites) == opened.architecture.sites
        assert profile.sites[f"layer.0.{act}"].keys() == {"input", "most"}


def test_a_recipes_gelu_stands_for_gelu_alone(tmp_path: Path) -> None:
    """PUMA's GeLU is further off than a fit; a model with SiLU must not meet it."""
    mixed = replace(FAITHFUL, name="mixed", gelu=PUMA.gelu)

    def off(act: str) -> float:
        path = folder(tmp_path / act, act, "BertModel")
        mine, ours = (twin(path, TOKENS, recipe=r).last_hidden_state for r in (mixed, "faithful"))
        return float(np.abs(mine - ours).max())

    assert off("silu") < 1e-3 < off("gelu")


@pytest.mark.parametrize("act", ["mish", "gelu_10", "leaky_relu", "", "GELU"])
def test_another_is_refused_by_name(act: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"hidden_act must be one of 'gelu', .*'silu', 'swish'.*'quick_gelu', got"):
        ModelFolder(folder(tmp_path, act))


def test_a_described_model_has_it(tmp_path: Path) -> None:
    """GeLU is not said, as it was not before there were others: their digests stay."""
    own = ModelFolder(folder(tmp_path / "a", "swish")).architecture
    assert own.facts()["act"] == "silu" and type(own).from_facts(own.facts()) == own
    assert not {"act", "score"} & ModelFolder(folder(tmp_path / "b", "gelu")).architecture.facts().keys()
