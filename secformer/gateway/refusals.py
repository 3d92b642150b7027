"""Errors as callers of such an API know them: a status, and a body with a message, a type, a parameter and a code."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from secformer.mpc.errors import (
    InputError,
    ModelError,
    ProtocolError,
    RangeError,
    SecformerError,
    SettingsError,
    TooLong,
    Untrusted,
)
from secformer.roles.asking import Busy

RETRY_AFTER = 2.0  # seconds after which a caller may ask again where nobody knows better
DRAINED_AFTER = 30.0  # the same where the operator wants no requests: maintenance takes a while
TYPES = {401: "authentication_error", 429: "rate_limit_error"}  # by status; others: who is at fault


class Refusal(Exception):
    """A request that is refused.

    status  of HTTP
    code    a word for programs
    param   the field of the body that is wrong
    after   seconds after which the request may be sent again
    """

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None, after: float | None = None):
        super().__init__(message)
        self.status, self.code, self.param, self.after = status, code, param, after

    def without(self, secret: str, instead: str) -> Refusal:
        """The same, with other words for some of its message's."""
        return Refusal(self.status, self.code, str(self).replace(secret, instead), param=self.param, after=self.after)

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = TYPES.get(self.status) or ("invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.after is None else {"Retry-After": str(math.ceil(self.after))}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == HTTPStatus.UNAUTHORIZED else {})


class Gone(Exception):
    """The caller has left, so nobody waits for the answer."""


class Closing(ProtocolError):
    """The gateway ends, and begins nothing more."""


class AllDrained(ProtocolError):
    """Every cell that could answer is drained."""

    def __init__(self, model: str):
        super().__init__(f"every cell of the model {model!r} that could answer is drained; `secformer cells resume` "
                         f"gives a cell work again")


def refusal_of(error: BaseException) -> Refusal:
    """What a caller is told of an error. Who the parties are, and what went wrong between them, is for the log."""
    told = str(error)
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TooLong):
        return Refusal(400, "context_length_exceeded", told)
    if isinstance(error, Untrusted):
        return Refusal(422, "untrusted_result", told)
    if isinstance(error, RangeError):
        return Refusal(422, "out_of_range", told)
    if isinstance(error, InputError | SettingsError):
        return Refusal(400, "invalid_value", told)
    if isinstance(error, ModelError):
        return Refusal(400, "unsupported_by_model", told, param="model")
    if isinstance(error, Closing):
        return Refusal(503, "shutting_down", "this gateway is shutting down; send the request again later",
                       after=RETRY_AFTER)
    if isinstance(error, AllDrained):
        return Refusal(503, "drained", "this model is not served now: its operator has drained it, for example for "
                                       "maintenance; try again after the time in Retry-After", after=DRAINED_AFTER)
    if isinstance(error, Busy) and error.after is not None:
        return Refusal(429, "party_limit", "this gateway's own limit at the parties is reached, such as the budget of "
                                           "its certificate; try again after the time in Retry-After",
                       after=error.after)
    if isinstance(error, ProtocolError):
        return Refusal(503, "parties_unavailable", "no two parties of this model can be asked now; the gateway's log "
                                                   "says why. Try again later", after=RETRY_AFTER)
    if isinstance(error, SecformerError):
        return Refusal(500, "failed", "the request failed; the gateway's log says why")
    return Refusal(500, "internal_error", "the gateway failed; its log says why")


def is_ours(error: BaseException) -> bool:
    """Whether the operator of the gateway must hear of an error. Others are about a caller's own texts, which a log
    must not have."""
    return not isinstance(error, Refusal) and refusal_of(error).status not in (400, 422)
