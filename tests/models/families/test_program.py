"""The program of a batch: what it takes, what it computes, and that it reveals what was asked for and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint

from secformer.models.data.batch import Batch
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors, PlainTensors
from secformer.models.data.tensors import TABLE
from secformer.models.families.blocks import Forward
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import behind_embedding, infer
from secformer.models.ranges.profile import measure
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import EXACT, FAITHFUL, Recipe

TEXTS = ["the cat sat", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    path: Path = write_checkpoint(tmp_path_factory.mktemp("model"), "BertForSequenceClassification", prefix="bert.")
    return ModelFolder(path)


class Watched(PlainSession):
    """A twin that notes what is revealed, to whom and where, and where input is accepted."""

    def __init__(self) -> None:
        super().__init__(strict=False)
        self.revealed: list[tuple[str, object, int]] = []
        self.accepted: list[tuple[str, int]] = []

    def accept(self, data: Any, **facts: Any) -> Share:
        share = super().accept(data, **facts)
        self.accepted.append((self._where(), share.frac))
        return share

    def _reveal(self, x: Share, to: int | str) -> np.ndarray:
        self.revealed.append((self._where(), to, x.frac))
        return super()._reveal(x, to)


def no_ranges(site: str) -> Site:
    return {}


def run(folder: ModelFolder, s: PlainSession, names: tuple[str, ...], *, private: bool,
        recipe: Recipe = EXACT) -> Mapping[str, np.ndarray]:
    layout = folder.layout(FixedPoint(), private=private)
    batch = Batch(tuple(folder.tokenizer.rows(TEXTS)))
    inputs = folder.architecture.inputs
    request = inputs.private_request(batch, layout[TABLE].width, lambda: inputs.one_hot(batch, np.float64)) if private \
        else inputs.client_request(batch, lambda: folder.embeddings(batch))
    forward = Forward(batch, load_weights(s, PlainTensors(layout, folder.checkpoint)), recipe, no_ranges)
    return infer(s, folder.architecture, request, forward, names)


def test_both_ways_in_give_the_same(folder: ModelFolder) -> None:
    names = tuple(folder.architecture.results)
    private, client = (run(folder, PlainSession(strict=False), names, private=p) for p in (True, False))
    assert list(private) == list(client) == ["last_hidden_state", "pooler_output", "logits"]
    for name in names:
        np.testing.assert_allclose(private[name], client[name], atol=1e-12)


@pytest.mark.parametrize("names", [("logits",), ("pooler_output", "last_hidden_state")])
@pytest.mark.parametrize("private", [True, False])
def test_what_was_asked_for_is_revealed_to_the_client_and_nothing_else(folder: ModelFolder, names: tuple[str, ...],
                                                                       private: bool) -> None:
    s = Watched()
    found = run(folder, s, names, private=private)
    assert list(found) == list(names)
    assert s.revealed == [("reveal", CLIENT, 16)] * len(names), "at the scale that the client decodes with"
    (entered,) = [frac for where, frac in s.accepted if where == "embedding"]
    assert entered == (0 if private else 16)


def test_results_are_revealed_at_one_scale(folder: ModelFolder) -> None:
    """Whatever scale a protocol leaves them at: the client knows the format's alone."""
    s, coarse = Watched(), replace(EXACT, tanh=lambda s, x, at: s.settle(x)[0] * 2.0)  # moves the point
    run(folder, s, ("pooler_output", "last_hidden_state"), private=False, recipe=coarse)
    assert [frac for _, _, frac in s.revealed] == [16, 16]


def test_behind_the_embedding_is_the_rest_of_it(folder: ModelFolder) -> None:
    s, batch = PlainSession(strict=False), Batch(tuple(folder.tokenizer.rows(TEXTS)))
    layout = folder.layout(FixedPoint(), private=False)
    forward = Forward(batch, load_weights(s, PlainTensors(layout, folder.checkpoint)), EXACT, no_ranges)
    out = behind_embedding(s, folder.architecture, folder.embeddings(batch), forward)
    expected = run(folder, PlainSession(strict=False), tuple(folder.architecture.results), private=False)
    assert list(out) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(out[name].data, values)


def test_a_plan_is_that_of_the_shape(folder: ModelFolder) -> None:
    """Texts of the same lengths have one plan; more results cost bytes and no round."""
    profile, layout = measure(folder, TEXTS, recipe=FAITHFUL), folder.layout(FixedPoint(), private=True)
    inputs = folder.architecture.inputs

    def plan(texts: list[str], names: tuple[str, ...]) -> Any:
        batch, recorder = Batch(tuple(folder.tokenizer.rows(texts))), PlanRecorder()
        ghost = inputs.private_request(batch, layout[TABLE].width, lambda: None).ghost()
        return recorder.record(lambda s: infer(s, folder.architecture, ghost, Forward(
            batch, load_weights(s, GhostTensors(layout)), FAITHFUL, profile), names))

    everything = tuple(folder.architecture.results)
    one, same, other = (plan(texts, everything) for texts in (TEXTS, ["a dog ran", "!"], ["the cat", "dog"]))
    assert one == same and one.digest != other.digest
    head = plan(TEXTS, ("logits",))
    assert head.bytes < one.bytes and head.rounds == one.rounds, "all results are settled in one round"
