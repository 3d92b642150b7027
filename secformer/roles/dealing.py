"""The conversation of the dealer and the parties: joining an epoch, and asking for corrections.

A connection starts with the party's note {"version", "ask"}:

- "join" {"model", "weights": the plan of provisioning} -> {"epoch", "seeds": the party's own}
- "deal" {"model", "weights", "epoch", "space", "after", "count", "plan", "cache", "request"} -> {"serial": first},
  then the corrections of `count` runs, in order. Party 1 only. The dealer chooses serials above `after` and burns them
  before it sends anything. "cache" names the caches that the runs take, by the run that opened them: "" for each run
  itself, null where they take none. "request" is the id of the request that they are for, for the dealer's logs; "" for
  a store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync
from secformer.mpc.net.tls import Context, TLSChannel, connect
from secformer.roles.epochs import Epoch, epoch_of
from secformer.version import __version__

T = TypeVar("T")
WEIGHTS = "weights"  # the run that masks a model's weights
MAX_PLAN = 1 << 26  # bytes of a note that carries a plan
JOIN_PATIENCE = 2.0  # seconds that a party tries to reach the dealer if it already knows an epoch


class DealerClient:
    """A party's access to the dealer, for one provisioned model. Each call makes its own connection, so that one
    request does not wait for another.

    weights   the plan of provisioning
    """

    def __init__(self, address: tuple[str, int], context: Context, model: str, weights: Plan, *,
                 deadline: float):
        self._address, self._context, self._deadline = address, context, deadline
        self._model = {"version": __version__, "model": model, "weights": weights.as_dict()}

    def join(self, *, patience: float) -> Epoch:
        """The model's epoch, with this party's seed. Raises PeerLost if the dealer is unreachable."""
        channel = self._ask({"ask": "join"}, patience)
        try:
            return _read(channel, epoch_of)
        finally:
            channel.close()

    def deal(self, epoch: Epoch, space: str, after: int, plan: Plan, *, count: int = 1,
             patience: float, cache: str | None = None, request: str = "") -> tuple[int, TLSChannel]:
        """The first serial of `count` runs, and the channel of their corrections. The caller closes the channel."""
        channel = self._ask({"ask": "deal", "epoch": epoch.name, "space": space, "after": after, "count": count,
                             "plan": plan.as_dict(), "cache": cache, "request": request}, patience)
        try:
            return _read(channel, lambda note: int(note["serial"])), channel
        except BaseException:
            channel.close()
            raise

    def _ask(self, note: dict[str, Any], patience: float) -> TLSChannel:
        channel = connect(self._address, "dealer", self._context, patience=patience, deadline=self._deadline)
        channel.tell(self._model | note)
        return channel


def _read(channel: TLSChannel, read: Callable[[dict[str, Any]], T]) -> T:
    note = channel.hear()
    try:
        return read(note)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Desync(f"{channel.peer} answered with a note that cannot be read (keys {sorted(note)}); do both sides "
                     f"run the same version?") from error
