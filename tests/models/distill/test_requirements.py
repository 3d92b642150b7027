"""Training without its packages is refused before it begins."""

from __future__ import annotations

import pytest

from secformer.models.distill import requirements
from secformer.mpc.errors import BackendUnavailable


@pytest.mark.parametrize(("missing", "said"), [
    (("torch",), r"not installed: torch\."), (("matplotlib",), r"not installed: matplotlib\."),
    (("torch", "matplotlib"), r"not installed: torch, matplotlib\."),
])
def test_what_is_missing_is_named(missing: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(BackendUnavailable, match=said) as caught:
        requirements.require_training()
    assert 'pip install "secformer[distill]"' in str(caught.value)


def test_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: object())
    requirements.require_training()
