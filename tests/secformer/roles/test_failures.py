"""What clients are told about failed requests: nothing of addresses, paths or other clients."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from secformer.mpc.errors import (
    AuthError,
    Desync,
    InputError,
    ModelError,
    OutOfMemory,
    PeerLost,
    ReusedRandomness,
    StoreError,
)
from secformer.roles.failures import ForClients, for_client
from secformer.roles.messages import Half

HALF = Half("ab12", "m" * 64, np.array([1]), np.ones((1, 1), bool), seed=bytes(32), trace="cd" * 16)
SECRET = "/srv/store of alice at 10.0.0.3:8440"


@pytest.mark.parametrize(("error", "said"), [
    (PeerLost(SECRET), "another role does not answer"), (Desync(SECRET), "no longer agreed"),
    (AuthError(SECRET), "could not prove who it is"), (StoreError(SECRET), "stored material"),
    (ReusedRandomness(SECRET), "used before"), (OutOfMemory(SECRET), "memory"), (OSError(SECRET), "unexpected"),
    (KeyError(SECRET), "unexpected")])
def test_the_log_has_the_story_and_the_client_its_id(error: Exception, said: str,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    text = for_client(error, HALF, "bob")
    assert said in text and "ab12" in text and not {"10.0.0.3", "srv", "alice"} & set(text.replace(":", " ").split())
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    assert fields["request"] == "ab12" and fields["trace"] == "cd" * 16
    assert fields["client"] == "bob" and SECRET in fields["problem"]
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize("error", [InputError("too long"), ModelError("no decoder"), ForClients("session ended")])
def test_what_is_about_the_request_itself_is_said(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert for_client(error, HALF, "bob") == str(error) and not caplog.records


def test_the_caller_may_know_better() -> None:
    assert for_client(PeerLost(SECRET), HALF, "bob", "the dealer does not answer").startswith("the dealer does not")
