"""Settings: what they hold, and what is refused with a reason."""

from __future__ import annotations

import socket
import threading
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import examples
from runs_lab import CPU, TEXTS

from secformer.models.run.local import SecureModel, plain_bert, secure_bert
from secformer.models.run.options import LEAST_FRAC, LONGEST, MOST_FRAC, Settings, settings_of
from secformer.mpc.errors import RangeError, SettingsError
from secformer.mpc.fixed import FixedPoint


@pytest.mark.parametrize("settings", [{"magnitude": 60}, {"magnitude": 31}, {"frac": 12, "magnitude": 39}])
def test_formats_that_do_not_fit_a_word(settings: dict[str, int]) -> None:
    with pytest.raises(RangeError):
        settings_of(settings)


@pytest.mark.parametrize("frac", [1, 4, LEAST_FRAC - 1, MOST_FRAC + 1, 24, 40])
def test_formats_that_are_not_offered_are_refused(frac: int) -> None:
    """With fewer bits answers would be rounding errors; with more, the results of series do not hold them."""
    wanted = f"frac must be 12 to 16: 16 is the accurate format, 12 the fast one; .*docs/accuracy.md.*, got {frac}$"
    with pytest.raises(SettingsError, match=wanted):
        settings_of({"frac": frac})


@pytest.mark.parametrize("frac", range(LEAST_FRAC, MOST_FRAC + 1))
def test_formats_that_are_offered(frac: int) -> None:
    assert settings_of({"frac": frac}).fixed == FixedPoint(frac)


@given(frac=st.sampled_from([LEAST_FRAC, 14, MOST_FRAC]), seed=st.integers(0, 1000))
@examples(6)
def test_errors_are_units_of_the_formats_last_place(frac: int, seed: int, tmp_path_factory: pytest.TempPathFactory
                                                    ) -> None:
    """Of a whole run on shares: a hidden state is off by some twenty units, whatever the format."""
    path = write_checkpoint(tmp_path_factory.mktemp("m"), seed=seed)
    out, exact = secure_bert(path, TEXTS, frac=frac, **CPU), plain_bert(path, TEXTS)
    error = np.abs(out.last_hidden_state - exact.last_hidden_state)[exact.attention_mask.astype(bool)].max()
    assert error * 2.0**frac < 60.0 and out.trusted.all()


def test_settings_have_the_documented_defaults() -> None:
    assert settings_of({}) == Settings(False, "private", "auto", 1024, 16, 14, 60.0, "mark", "auto", 16, None,
                                       False)


@pytest.mark.parametrize(("key", "values", "wanted"), [
    ("truncation", ["yes", 1, None], "True or False"),
    ("untrained_recipe", ["", 0, None], "True or False"),
    ("embedding", ["Private", "none", True], "'private' or 'client'"),
    ("output", ["logits", "", None], "'auto' or 'head'"),
    ("guard", ["on", True, None], "'mark' or 'nan' or 'raise' or 'off'"),
    ("batch_tokens", [0, -1, True, 2.0, "8"], "a positive whole number"),
    ("graph", ["on", "", True, None], "'auto' or 'off'"),
    ("pad_to", [0, -16, True, 16.0, None], "a positive whole number"),
    ("public_prefix", ["", False, 7, [1, "2"], [True], {1: 2}], "'auto', a system prompt, ids of tokens, or None"),
    ("frac", [0, False, 16.0], "a positive whole number"),
    ("magnitude", [-3, True, None], "a positive whole number"),
    ("deadline", [0, 0.0, -1, True, "60", None, float("nan"), float("inf"), -float("inf"), 1e300, 10**400, LONGEST + 1,
                  [60], 1j], "a positive number of seconds, at most 31536000 (a year)"),
])
def test_every_setting_says_what_it_takes(key: str, values: list[Any], wanted: str) -> None:
    for value in values:
        with pytest.raises(SettingsError) as caught:
            settings_of({key: value})
        assert str(caught.value) == f"{key} must be {wanted}, got {value!r}"


def test_good_values_are_kept() -> None:
    given = {"truncation": True, "embedding": "client", "output": "head", "batch_tokens": 1, "frac": 12, "magnitude": 9,
             "deadline": 2.5, "guard": "raise", "graph": "off", "pad_to": 1, "public_prefix": (1, 2),
             "untrained_recipe": True}
    assert set(given) == {f.name for f in fields(Settings)}, "a new setting wants a line here"
    settings = settings_of(given)
    assert asdict(settings) == given
    assert (settings.fixed.frac, settings.fixed.magnitude) == (12, 9)
    assert settings_of({"deadline": 3}).deadline == 3
    assert settings_of({"public_prefix": None}).public_prefix is None
    assert settings_of({"public_prefix": "Be kind."}).public_prefix == "Be kind."
    for longest in (LONGEST, float(LONGEST), 1e-3):
        assert settings_of({"deadline": longest}).deadline == longest


def test_the_longest_deadline_works(encoder: Path) -> None:
    """Locks and sockets overflow at some length of time; not at one that is allowed."""
    with SecureModel.from_pretrained(encoder, backend="numpy", deadline=LONGEST) as model:
        assert model("the cat").attention_mask.sum() == 4
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(float(LONGEST))
    assert threading.Lock().acquire(timeout=LONGEST)


def test_unknown_keys_are_told_with_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'magnitud': did you mean 'magnitude'\? The settings are "
                                            r"truncation, embedding, .*untrained_recipe$"):
        settings_of({"magnitud": 14})
    with pytest.raises(SettingsError, match=r"unknown setting 'x': The settings are"):
        settings_of({"frac": 16, "x": 1})


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().frac = 12  # type: ignore[misc]
