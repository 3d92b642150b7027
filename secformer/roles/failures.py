"""What clients are told about requests that fail. Addresses, paths and what other clients do stay in the logs."""

from __future__ import annotations

import logging

from secformer.mpc.errors import (
    AuthError,
    Desync,
    InputError,
    ModelError,
    OutOfMemory,
    PeerLost,
    ProtocolError,
    ReusedRandomness,
    StoreError,
)

log = logging.getLogger(__name__)


class ForClients(ProtocolError):
    """An error whose message is made for the client of a request."""


SHOWN = (ForClients, InputError, ModelError)  # what is wrong with the client's own request
GENERAL: tuple[tuple[type[BaseException], str], ...] = (  # the first that fits
    (AuthError, "a role that it needs could not prove who it is"),
    (ReusedRandomness, "its material was used before"),
    (StoreError, "stored material cannot be used"),
    (OutOfMemory, "there is not enough memory for a request of this size"),
    (PeerLost, "another role does not answer or has hung up"),
    (Desync, "the parties no longer agreed on what to compute"),
)


def for_client(error: BaseException, request: str, client: str, whose: str = "") -> str:
    """What the client of a request is told about an error. Where that is not all, the log tells the whole story.

    whose  what failed, where the caller knows it better than the error: a sentence without its end
    """
    if isinstance(error, SHOWN):
        return str(error)
    log.warning("request failed", extra={"fields": {
        "request": request, "client": client, "problem": f"{type(error).__name__}: {error}"}})
    general = next((text for kind, text in GENERAL if isinstance(error, kind)), "something unexpected happened")
    return f"{whose or general}; the parties' logs tell more under the request's id {request}"
