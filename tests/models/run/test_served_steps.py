"""A party's side of texts that grow: shapes of steps, their plans, and the numbers that parties compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from sessions_lab import LONGEST, speaker

from secformer.models.data.batch import blind_batch
from secformer.models.data.parameters import Parameters
from secformer.models.families.folder import ModelFolder
from secformer.models.run.options import Settings
from secformer.models.run.provisioning import SPARE, describe
from secformer.models.run.public import PublicModel
from secformer.models.run.served import PartyModel
from secformer.models.run.served_steps import PartyText, slot_bytes
from secformer.mpc.backend import choose_backend
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import InputError, ModelError
from secformer.mpc.kernels import NumpyKernels
from secformer.mpc.party import Party
from secformer.mpc.sessions.secure import SecureSession


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> PublicModel:
    path, profile = speaker(tmp_path_factory.mktemp("speaker"))
    return describe(ModelFolder(path), "auto", profile, Settings(public_prefix="auto"))


@pytest.fixture(scope="module")
def model(public: PublicModel) -> PartyModel:
    return PartyModel(public, SecureSession(Party(0, public.fixed, NumpyKernels(choose_backend("numpy")))))


def text(public: PublicModel) -> PartyText:
    assert public.decoder is not None
    return PartyText(SecureSession(Party(0, public.fixed, NumpyKernels(choose_backend("numpy")))), public.decoder,
                     Parameters())


def test_a_text_counts_as_its_client_does(public: PublicModel) -> None:
    grown = text(public)
    before = grown.timeline.digest
    assert grown.shape(70, 1, 1) == (70, 128, 1) and grown.timeline.digest == before, "a shape changes nothing"
    turn = grown.begun((70, 128, 1), 1)
    assert turn.shape == (70, 128, 1) and turn.positions.tolist() == list(range(1, 71))
    after = grown.timeline.digest
    assert after != before
    assert grown.begun(grown.shape(1, 5, 1), 5).positions.tolist() == [5]
    assert grown.timeline.length == 6 and grown.timeline.used == 72 and grown.timeline.digest != after


@pytest.mark.parametrize(("new", "keep", "last"), [(1, 0, 1), (1, 2, 1), (0, 1, 0), (2, 1, 3), (3, 1, 2), (2, 1, 0),
                                                   (LONGEST, 1, 1)])
def test_steps_that_cannot_be(public: PublicModel, new: int, keep: int, last: int) -> None:
    with pytest.raises(InputError, match=f"behind 1 to 1 tokens here, to at most {LONGEST} tokens; got {new} for"):
        text(public).shape(new, keep, last)


def test_a_shape_has_one_plan_and_slots_have_an_end(public: PublicModel, model: PartyModel,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    plan = model.step_plan((2, 64, 1))
    assert plan.dealer_bytes and plan is model.step_plan((2, 64, 1)) and isinstance(plan, Plan)
    assert len({model.step_plan(shape).digest for shape in ((2, 64, 1), (3, 64, 1), (2, 128, 1), (2, 64, 2))}) == 4
    assert public.slots >= SPARE * LONGEST and model.step_plan((1, public.slots, 1)).kinds
    with pytest.raises(InputError, match=f"needs {public.slots + 64} slots of its caches, and it may have"):
        model.step_plan((1, public.slots + 64, 1))


def test_books_hold_what_programs_evaluate(public: PublicModel, model: PartyModel) -> None:
    """Around each power of two: of slots, and of a text's tokens with the prefix. A reader refuses another series."""
    for capacity in (64, 128, 192, 256, 320, public.slots):
        assert model.step_plan((1, capacity, 1)).kinds
    for tokens in (1, 2, 31, 32, 63, 64, LONGEST - 1):
        assert model.plan(blind_batch(np.array([tokens]), np.ones((1, tokens), bool))).kinds
    assert public.books.keys() == {1, 2, 3, 4, 5, 6, 7} and public.steps.keys() == {6, 7, 8, 9}


def test_numbers_of_positions_tell_machines_apart(public: PublicModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another base of angles, or a cosine that rounds to another word, is another machine."""
    decoder = public.decoder
    assert decoder is not None
    slower = replace(decoder, spec=replace(decoder.spec, theta=decoder.spec.theta * (1.0 + 2.0**-20)))
    assert replace(public, salt="other").numbers == public.numbers
    assert replace(public, architecture=slower).numbers != public.numbers
    cos = np.cos
    monkeypatch.setattr(np, "cos", lambda t: np.where(t == 7.0, cos(t) + 2.0**-23, cos(t)))
    assert replace(public, salt="other").numbers != public.numbers


def test_only_causal_models_have_steps(public: PublicModel, model: PartyModel, tmp_path: Path) -> None:
    from secformer import demo_model

    other = describe(ModelFolder(demo_model()), "auto", None, Settings())
    assert not other.steps and not other.slots and other.numbers == "" and other.prefixed == 0
    assert public.prefixed == 1 and PublicModel.from_json(public.to_json(), "here") == public
    with pytest.raises(ModelError, match="does not tell the next token"):
        PartyModel(other, SecureSession(Party(0, other.fixed, NumpyKernels(choose_backend("numpy"))))).text()


def test_bytes_of_a_slot(public: PublicModel) -> None:
    """Keys and values of 2 layers, of 2 heads of 8 entries each; what was opened, and the factor."""
    assert public.decoder is not None and slot_bytes(public.decoder) == 2 * 2 * (2 * 8) * 2 * 8
