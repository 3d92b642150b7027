"""The conversation of the dealer and the parties: joining an epoch, and asking for corrections.

A connection starts with the party's note {"version", "streams", "ask"}:

- "join" {"model", "weights": the plan of provisioning, "runs"} -> {"epoch", "seeds": the party's own, "runs": its seeds
  of the runs that are not used, if it asks for them}
- "deal" {"model", "weights", "epoch", "space", "after", "count", "plan", "nonces", "cache", "kept", "request"} ->
  {"serial": the first}, then the corrections of `count` runs, in order. Party 1 only. The dealer chooses serials above
  `after`, and burns them before it sends anything. "nonces" are party 0's and party 1's (see `mpc/dealer/names`).
  "cache" names the caches that the runs take, by the run that opened them: "" for each run itself, null where they take
  none. "kept" names the caches of all sessions that go on; the dealer forgets the seeds of all others. "request" is the
  id of the request that they are for, for the dealer's logs; "" for a store.

Every note states the version and the format of the streams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync
from secformer.mpc.net.notes import whole
from secformer.mpc.net.tcp import StreamChannel
from secformer.mpc.net.tls import Context, TLSChannel, connect
from secformer.mpc.prg import FORMAT
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
        self._model = {"version": __version__, "streams": FORMAT, "model": model, "weights": weights.as_dict()}

    def join(self, *, patience: float, runs: bool = True) -> Epoch:
        """The model's epoch, with this party's seed and, where they are asked for, its seeds of runs. Raises PeerLost
        if the dealer is unreachable."""
        channel = self._ask({"ask": "join", "runs": runs}, patience)
        try:
            return _read(channel, epoch_of)
        finally:
            channel.close()

    def deal(self, epoch: Epoch, space: str, after: int, plan: Plan, *, nonces: tuple[bytes, bytes], count: int = 1,
             patience: float, cache: str | None = None, kept: Collection[str] = (),
             request: str = "") -> tuple[int, TLSChannel]:
        """The first serial of `count` runs, and the channel of their corrections. The caller closes the channel."""
        channel = self._ask({"ask": "deal", "epoch": epoch.name, "space": space, "after": after, "count": count,
                             "plan": plan.as_dict(), "nonces": [nonce.hex() for nonce in nonces], "cache": cache,
                             "kept": sorted(kept), "request": request}, patience)
        try:
            return serial_of(channel), channel
        except BaseException:
            channel.close()
            raise

    def _ask(self, note: dict[str, Any], patience: float) -> TLSChannel:
        channel = connect(self._address, "dealer", self._context, patience=patience, deadline=self._deadline)
        channel.tell(self._model | note)
        return channel


def serial_of(channel: StreamChannel) -> int:
    """The dealer's answer: the first serial. Raises Desync, PeerLost."""
    return _read(channel, lambda note: whole(note["serial"]))


def _read(channel: StreamChannel, read: Callable[[dict[str, Any]], T]) -> T:
    note = channel.hear()
    try:
        return read(note)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Desync(f"{channel.peer} answered with a note that cannot be read (keys {sorted(note)}); do both sides "
                     f"run the same version?") from error
