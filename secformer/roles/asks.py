"""What a party's notes ask of the dealer, checked entry by entry (see `dealing`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from secformer.mpc.dealer.names import NONCE_BYTES, STORED
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import AuthError, Desync
from secformer.mpc.net.notes import hexadecimal
from secformer.mpc.prg import FORMAT
from secformer.roles.dealing import PlansTold
from secformer.roles.epochs import space_of
from secformer.roles.messages import ID_DIGITS, is_id
from secformer.roles.traces import DIGITS, is_trace
from secformer.version import __version__

MOST_RUNS = 1 << 20  # runs that may be asked for at once


@dataclass(frozen=True)
class Greeting:
    """What the first note on a connection says for all that follow: the model, by its digest, and the plan of
    provisioning. `plans` are those that the party has sent."""

    model: str
    weights: Plan
    plans: PlansTold = field(default_factory=PlansTold, repr=False)

    @classmethod
    def read(cls, ask: Mapping[str, Any], role: str) -> Self:
        """Raises Desync."""
        if ask.get("version") != __version__:
            raise Desync(f"the dealer runs version {__version__}, {role} runs {ask.get('version')!r}; install the same "
                         f"version everywhere")
        if ask.get("streams") != FORMAT:
            raise Desync(f"the dealer makes streams of the format {FORMAT!r}, {role} of "
                         f"{str(ask.get('streams'))[:40]!r}; install the same version everywhere")
        weights, model = Plan.from_dict(entry(ask, "weights", dict)), entry(ask, "model", str)
        if not (len(model) == 64 and set(model) <= set("0123456789abcdef")):
            raise Desync(f"a note must name the model by its digest, 64 hexadecimal digits; got {model!r}")
        if weights.dealer_bytes or not weights.standing:
            raise Desync("the plan of provisioning must hold masks of weights only; do all roles run the same version?")
        return cls(model, weights)


@dataclass(frozen=True)
class Deal:
    """Runs that party 1 asks for: `count` of one plan, with serials above `after`.

    nonces   party 0's, which stored runs have none of, and party 1's
    cache    the name of the caches that they take; "" for those of each run itself, None for none
    kept     the names of the caches of all sessions that go on
    request  the id of the request that they are for, "" for a store's; and `trace` that of its trace, "" for none
    """

    plan: Plan
    epoch: str
    space: str
    after: int
    count: int
    nonces: tuple[bytes, bytes] = field(repr=False)
    cache: str | None
    kept: frozenset[str]
    request: str
    trace: str

    @classmethod
    def read(cls, ask: Mapping[str, Any], plans: PlansTold, role: str) -> Self:
        """Raises Desync, and AuthError for a role that has no right to them."""
        if role != "party1":
            raise AuthError(f"only party 1 receives corrections; {role} asked for them")
        plan = plans.read(entry(ask, "plan", str if isinstance(ask.get("plan"), str) else dict))
        space, count, after = entry(ask, "space", str), entry(ask, "count", int), entry(ask, "after", int)
        if not 1 <= count <= MOST_RUNS or after < -1:
            raise Desync(f"party1 asks for {count} run(s) after {after}; the dealer gives 1 to {MOST_RUNS} runs after "
                         f"-1 or more")
        if plan.standing:
            raise Desync("party1 asks for masks of weights in a run; only the plan of provisioning has them")
        if _caches(ask) is not None and space == STORED:
            raise Desync("party1 asks for runs of a session to store; a store's runs have no caches")
        return cls(plan, entry(ask, "epoch", str), space, after, count, _nonces(ask, space_of(space)), _caches(ask),
                   frozenset(map(str, entry(ask, "kept", list))), _request(ask), _trace(ask))


def _caches(ask: Mapping[str, Any]) -> str | None:
    cache: str | None = None if ask.get("cache") is None else entry(ask, "cache", str)
    return cache


def _nonces(ask: Mapping[str, Any], space: str) -> tuple[bytes, bytes]:
    try:
        theirs, own = entry(ask, "nonces", list)
        return hexadecimal(theirs, 0 if space == STORED else NONCE_BYTES), hexadecimal(own, NONCE_BYTES)
    except ValueError as error:
        raise Desync(f"a note must hold the nonces of party 0 and of party 1 ({error}); do both sides run the same "
                     f"version?") from error


def _request(ask: Mapping[str, Any]) -> str:
    request = ask.get("request", "")
    if request != "" and not (isinstance(request, str) and is_id(request)):
        raise Desync(f"a request's id has {ID_DIGITS} hexadecimal digits, and a store's runs have none; party1 names "
                     f"{str(request)[:64]!r}")
    return str(request)


def _trace(ask: Mapping[str, Any]) -> str:
    trace = ask.get("trace", "")
    if trace != "" and not (isinstance(trace, str) and is_trace(trace)):
        raise Desync(f"a trace's id has {DIGITS} hexadecimal digits; party1 names {str(trace)[:64]!r}")
    return str(trace)


def entry(note: Mapping[str, Any], name: str, kind: type) -> Any:
    """An entry of a note, of that type. Raises Desync."""
    value = note.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Desync(f"a note must hold {name!r} as {kind.__name__}, got {type(value).__name__}; do both sides run the "
                     f"same version?")
    return value
