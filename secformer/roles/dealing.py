"""The conversation of the dealer and the parties: joining an epoch, and asking for corrections.

A party asks one thing after the other on a connection. Each ask is a note {"ask"}; the first one on a connection also
has {"version", "streams", "model", "weights": the plan of provisioning}, which hold for all that follow.

- "join" {"runs"} -> {"epoch", "seeds": the party's own, "runs": its seeds of the runs that are not used, if it asks for
  them}
- "deal" {"epoch", "space", "after", "count", "plan", "nonces", "cache", "kept", "request", "trace"} -> {"serial": the
  first}, then the corrections of `count` runs, in order. Party 1 only. The dealer chooses serials above `after`, and
  burns them before it sends anything. "plan" is a whole plan, or the digest of one that was sent on this connection
  (see `PlansTold`). "nonces" are party 0's and party 1's (see `mpc/dealer/names`). "cache" names the caches that the
  runs take, by the run that opened them: "" for each run itself, null where they take none. "kept" names the caches of
  all sessions that go on; the dealer forgets the seeds of all others. "request" and "trace" are the ids of the request
  that they are for and of its trace, for the dealer's logs; "" where there is none, as for a store.

The dealer ends the connection of an ask that it refuses, and says why.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import Desync, PeerLost, ProtocolError
from secformer.mpc.net.channel import Buffer, Channel
from secformer.mpc.net.notes import whole
from secformer.mpc.net.tcp import LINGER, StreamChannel
from secformer.mpc.net.tls import Context, TLSChannel, connect
from secformer.mpc.net.wire import Tag
from secformer.mpc.prg import FORMAT
from secformer.roles.epochs import Epoch, epoch_of
from secformer.roles.precedence import Precedence
from secformer.version import __version__

T = TypeVar("T")
WEIGHTS = "weights"  # the run that masks a model's weights
MAX_PLAN = 1 << 26  # bytes of a note that carries a plan
PLANS = 32          # plans that both ends of a connection remember
IDLE = 600.0        # seconds for which a party keeps a connection on which it asks nothing
JOIN_PATIENCE = 2.0  # seconds that a party tries to reach the dealer if it already knows an epoch


class PlansTold:
    """The plans that were sent on a connection, so that each is sent once. Both ends remember the same ones: those that
    came up last."""

    def __init__(self) -> None:
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    def told(self, plan: Plan) -> dict[str, Any] | str:
        """What a note says for a plan: all of it, or its digest if the other end knows it."""
        known = plan.digest in self._plans
        self._came_up(plan)
        return plan.digest if known else plan.as_dict()

    def read(self, told: Mapping[str, Any] | str) -> Plan:
        """The plan that the other end means. Raises Desync."""
        if not isinstance(told, str):
            plan = Plan.from_dict(told)
        elif (known := self._plans.get(told)) is not None:
            plan = known
        else:
            raise Desync(f"a plan must be sent whole once on each connection, but {told[:64]!r} was not; do both sides "
                         f"run the same version?")
        self._came_up(plan)
        return plan

    def _came_up(self, plan: Plan) -> None:
        self._plans[plan.digest] = plan
        self._plans.move_to_end(plan.digest)
        if len(self._plans) > PLANS:
            self._plans.popitem(last=False)


class _Connection:
    """A connection to the dealer, and what was said on it. `used`: when it was last needed, as `time.monotonic`."""

    def __init__(self, channel: TLSChannel):
        self.channel, self.plans, self.greeted, self.used = channel, PlansTold(), False, 0.0


class DealerClient:
    """A party's access to the dealer, for one provisioned model. Connections are kept for the next ask, so that a
    request need not wait at the dealer's door. Asks at the same time have connections of their own. Thread-safe.

    weights  the plan of provisioning
    most     connections that are kept while nothing is asked on them
    silence  seconds after which a kept connection fails if the dealer's system does not confirm what was sent
    precedence  counts the runs that are being dealt here, where somebody must give way to them
    """

    def __init__(self, address: tuple[str, int], context: Context, model: str, weights: Plan, *,
                 deadline: float, most: int = 1, silence: float | None = None,
                 precedence: Precedence | None = None):
        self._precedence = precedence or Precedence()
        self._address, self._context, self._deadline = address, context, deadline
        self._most, self._silence = most, silence
        self._model = {"version": __version__, "streams": FORMAT, "model": model, "weights": weights.as_dict()}
        self._kept: list[_Connection] = []  # the one that was used last comes last
        self._closed = False
        self._lock = threading.Lock()

    def join(self, *, patience: float, runs: bool = True) -> Epoch:
        """The model's epoch, with this party's seed and, where they are asked for, its seeds of runs. Raises PeerLost
        if the dealer is unreachable."""
        connection, epoch = self._ask(lambda plans: {"ask": "join", "runs": runs}, epoch_of, patience)
        self._keep(connection)
        return epoch

    def deal(self, epoch: Epoch, space: str, after: int, plan: Plan, *, nonces: tuple[bytes, bytes], count: int = 1,
             patience: float, cache: str | None = None, kept: Collection[str] = (),
             request: str = "", trace: str = "") -> tuple[int, Channel]:
        """The first serial of `count` runs, and the channel of their corrections. The caller closes the channel."""
        def note(plans: PlansTold) -> dict[str, Any]:
            return {"ask": "deal", "epoch": epoch.name, "space": space, "after": after, "count": count,
                    "plan": plans.told(plan), "nonces": [nonce.hex() for nonce in nonces], "cache": cache,
                    "kept": sorted(kept), "request": request, "trace": trace}

        end = self._precedence.begin()
        try:
            connection, serial = self._ask(note, _serial, patience)
        except BaseException:
            end()
            raise
        return serial, _Corrections(connection.channel, count * plan.messages, lambda: self._keep(connection), end)

    def rest(self) -> None:
        """Hangs up where nothing was asked for a while, or where a certificate has changed."""
        now = time.monotonic()
        with self._lock:
            kept, self._kept = self._kept, []
            for connection in kept:
                if connection.used + IDLE > now and connection.channel.lasts():
                    self._kept.append(connection)
            gone = [connection for connection in kept if connection not in self._kept]
        for connection in gone:
            connection.channel.close()

    def close(self) -> None:
        """Hangs up on all connections that are kept, and keeps none from now on."""
        with self._lock:
            kept, self._kept, self._closed = self._kept, [], True
        for connection in kept:
            connection.channel.close()
        for connection in kept:
            connection.channel.gone.wait(LINGER)

    def _ask(self, note: Callable[[PlansTold], Mapping[str, Any]], read: Callable[[dict[str, Any]], T],
             patience: float) -> tuple[_Connection, T]:
        """The dealer's answer, and the connection that it came on. Where a kept connection turns out to be lost, the
        note is sent once more on a new one: nothing of the first answer was used, and the dealer gives out no serial
        twice."""
        end = time.monotonic() + patience
        if (kept := self._take()) is not None:
            try:
                return kept, self._answer(kept, note, read)
            except PeerLost:
                if time.monotonic() >= end:
                    raise
        channel = connect(self._address, "dealer", self._context, patience=end - time.monotonic(),
                          deadline=self._deadline, silence=self._silence)
        new = _Connection(channel)
        return new, self._answer(new, note, read)

    def _answer(self, connection: _Connection, note: Callable[[PlansTold], Mapping[str, Any]],
                read: Callable[[dict[str, Any]], T]) -> T:
        channel = connection.channel
        try:
            channel.tell({**({} if connection.greeted else self._model), **note(connection.plans)})
            connection.greeted = True
            return _read(channel, read)
        except BaseException:
            channel.close()
            raise

    def _take(self) -> _Connection | None:
        """A kept connection that can be used, the one that was used last. Hangs up on those that cannot."""
        while True:
            with self._lock:
                connection = self._kept.pop() if self._kept else None
            if connection is None or connection.channel.lasts():
                return connection
            connection.channel.close()

    def _keep(self, connection: _Connection) -> None:
        connection.used = time.monotonic()
        with self._lock:
            full = self._closed or len(self._kept) >= self._most
            if not full:
                self._kept.append(connection)
        if full:
            connection.channel.close()


class _Corrections(Channel):
    """The corrections of one ask. If all have come when it is closed, the connection may be asked on again; else it is
    of no use any more.

    left  messages that are to come
    back  takes the connection back
    end   is told that nothing more comes
    """

    def __init__(self, channel: TLSChannel, left: int, back: Callable[[], None], end: Callable[[], None]):
        self._channel, self._left, self._back, self._end, self._over = channel, left, back, end, False
        super().__init__(channel.peer, channel.deadline)

    @property
    def buffer(self) -> Buffer:
        """What the connection is read into."""
        return self._channel.buffer

    @buffer.setter
    def buffer(self, buffer: Buffer) -> None:
        self._channel.buffer = buffer

    def receive(self, tag: Tag, nbytes: int) -> Any:
        if self._over or not self._left:
            raise ProtocolError(f"the corrections of this run have ended, but {tag} is asked for")
        message = self._channel.receive(tag, nbytes)
        self._left -= 1
        return message

    def send(self, tag: Tag, payload: Any) -> None:
        raise ProtocolError("corrections are only read")

    def abort(self, reason: str) -> None:
        self._over = True
        self._end()
        self._channel.abort(reason)

    def close(self) -> None:
        if self._over:
            return
        self._over = True
        self._end()
        if self._left:
            self._channel.close()
        else:
            self._back()


def serial_of(channel: StreamChannel) -> int:
    """The dealer's answer: the first serial. Raises Desync, PeerLost."""
    return _read(channel, _serial)


def _serial(note: dict[str, Any]) -> int:
    return whole(note["serial"])


def _read(channel: StreamChannel, read: Callable[[dict[str, Any]], T]) -> T:
    note = channel.hear()
    try:
        return read(note)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Desync(f"{channel.peer} answered with a note that cannot be read (keys {sorted(note)}); do both sides "
                     f"run the same version?") from error
