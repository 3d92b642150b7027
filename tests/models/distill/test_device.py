"""Devices by name, and how many threads are refused."""

from __future__ import annotations

import numpy as np
import pytest

from secformer.mpc.errors import BackendUnavailable, SettingsError

torch = pytest.importorskip("torch")
from secformer.models.distill.device import device_named, flushed, use_threads  # noqa: E402


@pytest.mark.parametrize(("there", "found"), [(False, "cpu"), (True, "cuda")])
def test_auto_is_a_gpu_where_there_is_one(there: bool, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert (device_named("auto"), device_named("cpu")) == (found, "cpu")


def test_cuda_without_a_gpu_and_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailable, match="auto or cpu"):
        device_named("cuda")
    with pytest.raises(SettingsError, match="auto, cpu or cuda, got 'gpu'"):
        device_named("gpu")


def test_threads() -> None:
    before = torch.get_num_threads()
    with pytest.raises(SettingsError, match="at least 1, got 0"):
        use_threads(0)
    assert torch.get_num_threads() == before


def test_small_numbers_count_again_after_training() -> None:
    small = np.float64(1e-310)
    with flushed():
        pass
    assert small * np.float64(0.5) > 0.0
