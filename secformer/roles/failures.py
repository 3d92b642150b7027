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
    SecformerError,
    StoreError,
)
from secformer.roles.messages import Half
from secformer.roles.traces import fields_of

log = logging.getLogger(__name__)


class ForClients(ProtocolError):
    """An error whose message is made for the client of a request."""


class AtLimit(ForClients):
    """A client is at one of its limits. Nothing was begun, so it may ask the same again later."""


class NoRoom(ForClients):
    """A party has no room for this now, because of others. Nothing was begun."""


class HalvesDiffer(ForClients):
    """The two halves of a request do not belong together."""


class SessionEnded(ForClients):
    """A step of a session that is not there any more."""


KINDS: dict[str, type[SecformerError]] = {  # what the parties tell each other beside the words
    "limit": AtLimit, "room": NoRoom, "halves": HalvesDiffer, "session": SessionEnded, "input": InputError}
SHOWN = (ForClients, InputError, ModelError)  # what is wrong with the client's own request
NOT_ONE_HOT = ("the rows of this request are not one-hot, or its halves do not belong together; share token ids with "
               "this version's client. If you did, a party may be cheating: tell both operators")
GENERAL: tuple[tuple[type[BaseException], str], ...] = (  # the first that fits
    (AuthError, "a role that it needs could not prove who it is"),
    (ReusedRandomness, "its material was used before"),
    (StoreError, "stored material cannot be used"),
    (OutOfMemory, "there is not enough memory for a request of this size"),
    (PeerLost, "another role does not answer or has hung up"),
    (Desync, "the parties no longer agreed on what to compute"),
)


def kind_of(error: BaseException) -> str:
    """The kind of a refusal, as the other party learns it; "" for a failure that is no client's doing."""
    return next((kind for kind, which in KINDS.items() if isinstance(error, which)), "")


def refusal(kind: str, message: str) -> SecformerError:
    """The error of that kind, for the client of a request."""
    return KINDS.get(kind, ForClients)(message)


def for_client(error: BaseException, half: Half, client: str, whose: str = "") -> str:
    """What the client of a request is told about an error. Where that is not all, the log tells the whole story.

    whose  what failed, where the caller knows it better than the error: a sentence without its end
    """
    if isinstance(error, SHOWN):
        return str(error)
    log.warning("request failed", extra={"fields": {
        "request": half.request, **fields_of(half.trace), "client": client,
        "problem": f"{type(error).__name__}: {error}"}})
    return f"{whose or general(error)}; the parties' logs tell more under the request's id {half.request}"


def general(error: BaseException) -> str:
    """An error in general words: a sentence without its end."""
    return next((text for kind, text in GENERAL if isinstance(error, kind)), "something unexpected happened")
