"""Texts that grow at two engines in one process, over TLS, with the dealer beside them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")
pytest.importorskip("torch")

from engines_lab import Engines, Gate
from roles_lab import no_serial_twice, until
from sessions_lab import LONGEST, speaker

from secformer.models.run.local import PlainModel, SecureModel
from secformer.mpc.errors import InputError, ProtocolError
from secformer.mpc.party import Party
from secformer.roles import engine as module

PROMPT, OTHER = "hello world", "The world"
NEW = {"max_new_tokens": 5, "draft": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return speaker(tmp_path_factory.mktemp("speaker"))


@pytest.fixture(scope="module")
def twin(made: Any) -> PlainModel:
    return PlainModel.from_pretrained(made[0], profile=made[1])


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, made: Any) -> Iterator[Engines]:
    with Engines(tmp_path_factory.mktemp("engines"), made[0], {"profile": made[1]}, sessions=3) as engines:
        yield engines
    no_serial_twice(engines.roles)


@pytest.fixture
def up(engines: Engines) -> Iterator[Engines]:
    engines.ready()
    yield engines
    for engine in engines.engines:
        engine.sessions.end_all("the test has ended")


def test_tokens_are_those_of_one_process_and_of_the_twin(up: Engines, made: Any, twin: PlainModel) -> None:
    wanted = twin.generate(PROMPT, **NEW)
    with SecureModel.from_pretrained(made[0], profile=made[1], backend="numpy") as model:
        here = model.generate(PROMPT, **NEW)
    with up.client() as client:
        found = client.generate(PROMPT, **NEW)
        drafted = client.generate(PROMPT, max_new_tokens=5)
        assert not [engine.sessions.count() for engine in up.engines if engine.sessions.count()], "texts are closed"
        scored = client.score(PROMPT)
    assert found.tokens == here.tokens == wanted.tokens == drafted.tokens and len(found.tokens) == 5
    assert found.trusted and np.allclose(found.logprobs, wanted.logprobs, atol=5e-3)
    assert scored.log_likelihood == pytest.approx(twin.score(PROMPT).log_likelihood, abs=0.05)
    assert found.token_cost.rounds == here.token_cost.rounds and found.token_cost.bytes == here.token_cost.bytes
