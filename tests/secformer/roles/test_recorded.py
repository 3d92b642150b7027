"""Engines and the dealer on models of a GPU, over TLS: requests of a shape that comes again are repeated."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")

from checkpoints import write_checkpoint
from cuda_lab import HostModules
from engines_lab import Engines
from graph_lab import graph_device
from roles_lab import TOLERANCE, no_serial_twice

from secformer import plain_bert
from secformer.mpc.backend import Backend
from secformer.mpc.kernels import Kernels, kernels_for
from secformer.mpc.segments import Launches
from secformer.roles import dealer_server, engine
from secformer.roles.logs import not_recorded

TEXTS = "the cat sat", "the cat sat", "a dog", "it is not a very good film"


class Devices:
    """Kernels for roles as they start: of a model of a GPU where `on_gpu` names the role, else of the CPU."""

    def __init__(self, modules: HostModules, on_gpu: tuple[str, ...]):
        self._modules, self._on_gpu = modules, on_gpu
        self._waiting = ["dealer", "party 0", "party 1"]  # in the order in which a lab makes them
        self.gpus: dict[str, Any] = {}

    def __call__(self, backend: Backend) -> Kernels:
        role = self._waiting.pop(0)
        if role not in self._on_gpu:
            return kernels_for(backend)
        xp, kernels, _ = graph_device(self._modules, seed=1)
        xp.gpu.segmented = True
        self.gpus[role] = xp.gpu
        return kernels


@pytest.fixture
def devices(host_modules: HostModules, monkeypatch: pytest.MonkeyPatch) -> Devices:
    devices = Devices(host_modules, ("dealer", "party 0"))
    for module in (dealer_server, engine):
        monkeypatch.setattr(module, "kernels_for", devices)
    return devices


def test_a_party_on_a_gpu_works_with_one_on_a_cpu(devices: Devices, tmp_path: Path) -> None:
    """Texts of several lengths that are filled up to one are repetitions of one recording: masks are inputs."""
    folder = write_checkpoint(tmp_path / "model", "BertForSequenceClassification", num_hidden_layers=1)
    with Engines(tmp_path / "roles", folder, in_flight=1, deadline=120.0) as engines:
        engines.ready()
        with engines.client(pad_to=10) as model:
            for text in TEXTS:
                assert np.abs(model.infer(text).logits - plain_bert(folder, text).logits).max() < TOLERANCE
        for role, gpu in devices.gpus.items():
            assert len(gpu.graphs) > 20, role
            assert {graph.launches for graph in gpu.graphs} == {3}, role
        for reports in engines.reports:
            assert len({(cost.bytes, cost.rounds, cost.dealer_bytes) for cost in reports.costs}) == 1
    no_serial_twice(engines.roles)


def test_recordings_are_forgotten_before_weights_are_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They read the weights as they were opened."""
    log: list[str] = []

    class Noted(Launches):
        def forget(self, which: Any = None) -> None:
            log.append("forget")

    monkeypatch.setattr(engine, "runs_on", lambda *args: Noted())
    opened = engine.PartyModel.load_weights
    monkeypatch.setattr(engine.PartyModel, "load_weights", lambda *args: (log.append("opened"), opened(*args)))
    with Engines(tmp_path, in_flight=3) as engines:
        engines.ready()
    assert sorted(log) == ["forget"] * 6 + ["opened"] * 2 and "opened" not in log[:3] and log[-1] == "opened"


def test_why_nothing_is_recorded_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "secformer"):
        not_recorded("the driver is too old")
    (record,) = caplog.records
    assert record.getMessage() == "not recorded" and json.dumps(record.fields) == '{"problem": "the driver is too old"}'
