"""Settings: what they hold, and what is refused with a reason."""

from __future__ import annotations

import pytest

from secformer.models.run.options import Settings, settings_of
from secformer.mpc.errors import RangeError


@pytest.mark.parametrize("settings", [{"frac": 40}, {"magnitude": 60}, {"frac": 24, "magnitude": 20}])
def test_formats_that_do_not_fit_a_word(settings: dict[str, int]) -> None:
    with pytest.raises(RangeError):
        settings_of(settings)


def test_settings_have_the_documented_defaults() -> None:
    assert settings_of({}) == Settings(False, "private", "auto", 1024, 16, 14, 60.0)
