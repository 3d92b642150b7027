"""What encoders with rotary positions cost beside BERT, by the plan recorder; what they refuse of rope parameters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from price_lab import price

from secformer.models.data.batch import Batch, Row
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors
from secformer.models.families.bert import Bert
from secformer.models.families.blocks import Forward
from secformer.models.families.config import Config
from secformer.models.families.encoder_facts import EncoderSpec
from secformer.models.families.modernbert import ModernBert, ModernBertSpec
from secformer.models.families.nomic_bert import NomicBert, NomicBertSpec
from secformer.models.families.program import behind_embedding
from secformer.models.families.rotary import theta_of
from secformer.mpc.errors import ModelError
from secformer.mpc.ops.book import Writer
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import FAITHFUL

C, HEADS = 128, 2  # heads are as large as in models of base size
SIZES: dict[str, Any] = {"vocab": 50, "types": 0, "hidden": C, "heads": HEADS, "intermediate": 2 * C, "eps": 1e-5,
                         "pooler": False}
AT: Site = {"input": Range(-12.0, 12.0), "gate": Range(-8.0, 8.0), "gain": Range(2.0, 2.0), "score": Range(-14.0, 14.0),
            "variance": Range(0.3, 6.0), "value": Range(-8.0, 8.0), "spread": Range(-28.0, 0.0),
            "exp_sum": Range(1.0, 150.0)}


def bert(layers: int) -> Bert:
    return Bert(EncoderSpec(architecture="BertModel", positions=2000, layers=layers, **SIZES))


def nomic(layers: int) -> NomicBert:
    return NomicBert(NomicBertSpec(architecture="NomicBertModel", positions=0, longest=2000, layers=layers,
                                   theta=1000.0, act="silu", **SIZES))


def modern(*local: bool) -> ModernBert:
    return ModernBert(ModernBertSpec(
        architecture="ModernBertModel", positions=0, longest=2000, layers=len(local), local=local, reach=64,
        thetas=(160000.0, 10000.0), norm_bias=False, attention_bias=False, mlp_bias=False, head_bias=False,
        decoder_bias=True, pooling="cls", head_act="gelu", **SIZES))


def test_turning_costs_no_round() -> None:
    """A layer of NomicBERT takes as many rounds as BERT's: the product with the gate also truncates what the activation
    gives, which takes BERT a round."""
    theirs, ours = (price(family(2), AT, 33) - price(family(1), AT, 33) for family in (bert, nomic))
    assert ours[0] == theirs[0]


def test_local_attention_makes_long_texts_cheap() -> None:
    """At 1,024 tokens, a layer of local attention to 128 tokens costs less than 0.6 of one that sees all; short texts
    cost the same, since one block is all that they need."""
    one, everywhere, near = (price(modern(*local), AT, 1024) for local in ((False,), (False, False), (False, True)))
    assert (near - one)[1] < 0.6 * (everywhere - one)[1] and (near - one)[0] < (everywhere - one)[0]
    assert (price(modern(False, True), AT, 64) == price(modern(False, False), AT, 64)).all()
    assert (near - one)[1] < (price(bert(2), AT, 1024) - price(bert(1), AT, 1024))[1]


def fitted(length: int) -> list[Any]:
    """The series of a text of this length, where nothing but the number of keys bounds row sums."""
    nothing, ones = np.zeros(length, np.int64), np.ones(length, np.int64)
    batch, architecture, written = Batch((Row(nothing, nothing, ones),)), modern(False, True), Writer()
    tensors, at = GhostTensors(architecture.layout(None)), dict(AT) | {"exp_sum": Range(1.0, 1e9)}

    def program(s: PlanRecorder) -> None:
        with s.agreeing(written):
            forward = Forward(batch, load_weights(s, tensors), FAITHFUL, lambda site: at)
            behind_embedding(s, architecture, ghost((length, C)), forward)

    PlanRecorder().record(program)
    return written.series


def test_lengths_of_one_class_have_one_book() -> None:
    """Parties read series from a book that was written for the largest length of a class."""
    book = fitted(512)
    assert all(fitted(length) == book for length in (257, 300)) and fitted(256) != book


@pytest.mark.parametrize("parameters, message", [
    (None, "rope_theta of here must be a number above 1"), ({"rope_theta": "big"}, "rope_theta of here"),
    ({"rope_theta": 1.0}, "got 1.0"), ({"rope_type": "llama3", "rope_theta": 9.0}, "rope_type of here .*got 'llama3'"),
    ({"type": "yarn", "rope_theta": 9.0}, "got 'yarn'"),
    ({"rope_theta": 9.0, "partial_rotary_factor": 0.5}, "partial_rotary_factor of here must be 1"),
])
def test_rope_parameters_that_are_not_run(parameters: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        theta_of(Config(SimpleNamespace(), Path("config.json")), "here", parameters)


def test_rope_parameters() -> None:
    config = Config(SimpleNamespace(), Path("config.json"))
    assert theta_of(config, "here", {"rope_theta": 10000}) == 10000.0
    assert theta_of(config, "here", {"rope_type": "default", "rope_theta": 9.5, "partial_rotary_factor": 1.0}) == 9.5
