"""A door: a listening socket in an asyncio loop, and the strangers that have connected but not proved who they are.

Whatever strangers do, they take a fixed number of descriptors and a fixed share of a core at most, and each is gone
after `HANDSHAKE` seconds. Those who have proved who they are have places elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from secformer.mpc.errors import AuthError, SecformerError
from secformer.mpc.net.places import Place, Places, site
from secformer.mpc.net.tcp import reset, reset_when_closed
from secformer.mpc.net.tls import HANDSHAKE

TICK = 0.02         # seconds in which a door does a limited amount of work for strangers
ACCEPTED = 60       # connections that are accepted in a tick; more wait in the system's short queue
BEGUN = 12          # of those, how many may begin to prove who they are: a TLS handshake costs a third of a millisecond
RECORD, LONGEST_RECORD = 5, 1 << 14  # bytes of a TLS record's header, and of the rest
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_PAUSE = 0.5  # seconds in which nobody is accepted if the system gives no descriptor

# Why a connection was refused
GAVE_WAY, TOO_SLOW, JUNK, LEFT, UNPROVED, NO_ROOM, NO_DESCRIPTOR, FAILED = (
    "gave way", "too slow", "junk", "left", "unproved", "no room", "no descriptor", "failed")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """A connection that was not let in, or that failed later: its address, why (a word from above), the whole story."""

    where: str
    why: str
    problem: str


Report = Callable[[Refused], None]
Meet = Callable[[socket.socket, str], Awaitable[None]]


def opens_tls(data: bytes) -> int:
    """How many bytes a TLS client's first record has, or 5 until that is known; 0 if these do not begin one."""
    if data[:1] != b"\x16" or data[1:2] not in (b"", b"\x03"):
        return 0
    size = int.from_bytes(data[3:5], "big") if len(data) >= RECORD else 0
    return RECORD + size if size <= LONGEST_RECORD else 0


def opens_http(data: bytes) -> int:
    """1 if these may be the first bytes of an HTTP request, which begins with a method's name; else 0."""
    return int(data[:1].isalpha() and data[:1].isupper())


class Door:
    """Accepts connections until it is closed. Construct it in the running loop that it works in.

    1. The system's queue is emptied quickly, so that known peers do not wait behind a flood. Each stranger takes one of
       the `strangers` places, and the place's rules say who gives way.
    2. A stranger that has not said as many bytes as `opens` asks for costs a descriptor: the system wakes nobody before
       they are there. Whoever begins otherwise is hung up on.
    3. `meet` proves who the others are: those of known addresses first, then whoever came last. Under a flood, who
       came last is likeliest to be a peer that still waits.
    4. All this takes at most `patience` seconds for each connection, from its acceptance.

    meet     returns when the connection is no stranger's any more, and has then taken it over; else it raises
    refused  is told of every connection that was not let in
    """

    def __init__(self, listener: socket.socket, strangers: Places, opens: Callable[[bytes], int], meet: Meet,
                 refused: Report, patience: float = HANDSHAKE):
        listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._socket, self._strangers, self._opens, self._meet = listener, strangers, opens, meet
        self._refused, self._patience = refused, patience
        self._here: dict[_Stranger, None] = {}  # in the order in which they came, which is that of their deadlines
        self._spoke: dict[_Stranger, None] = {}  # those who wait to prove who they are
        self._accepted = self._begun = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._listening = self._closed = False
        self._listen()

    def close(self) -> None:
        """Accepts nobody any more, and hangs up on all strangers. The listening socket stays open."""
        self._closed = True
        self._deafen()
        for timer in (self._ticking, self._sweeping):
            if timer is not None:
                timer.cancel()
        for stranger in list(self._here):
            self._end(stranger)

    async def wait_closed(self) -> None:
        """Returns at once: nothing is left open by `close`."""

    # ---- a limited amount of work in each tick --------------------------------------------------------------------

    def _listen(self) -> None:
        if not self._listening and not self._closed:
            self._loop.add_reader(self._socket.fileno(), self._accept)
            self._listening = True

    def _deafen(self) -> None:
        if self._listening:
            self._loop.remove_reader(self._socket.fileno())
            self._listening = False

    def _tick(self) -> None:
        """Begins a new tick, if there was anything to do in the last one."""
        worked, self._accepted, self._begun, self._ticking = self._accepted + self._begun, 0, 0, None
        if worked or self._spoke:
            self._ticking = self._loop.call_later(TICK, self._tick)
        self._listen()
        self._begin()

    def _start_ticking(self) -> None:
        if self._ticking is None and not self._closed:
            self._ticking = self._loop.call_later(TICK, self._tick)

    # ---- from the system's queue to the first bytes ---------------------------------------------------------------

    def _accept(self) -> None:
        self._start_ticking()
        while self._accepted < ACCEPTED:
            try:
                connection, where = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._out_of_descriptors(error)
                return
            self._accepted += 1
            self._came(connection, where[0], where[1])
        self._deafen()  # until the next tick

    def _out_of_descriptors(self, error: OSError) -> None:
        """The system lists the socket as ready until somebody is accepted, so look away for a while. Strangers give
        back what they hold."""
        self._deafen()
        self._refused(Refused("", NO_DESCRIPTOR, f"nobody can be accepted: {error.strerror or error}; raise the limit "
                                                 f"of open files"))
        if error.errno in EXHAUSTED:
            for stranger in list(self._here)[:ACCEPTED]:
                self._hang_up(stranger, GAVE_WAY, "the process has no descriptor left")
        if self._ticking is not None:
            self._ticking.cancel()
        self._ticking = self._loop.call_later(EXHAUSTED_PAUSE, self._tick)

    def _came(self, connection: socket.socket, host: str, port: int) -> None:
        connection.setblocking(False)
        stranger = _Stranger(connection, f"{host}:{port}", site(host), self._loop.time() + self._patience)
        place = self._strangers.enter(stranger.site, lambda: self._hang_up(
            stranger, GAVE_WAY, "it had not proved who it is when others came"))
        if place is None:
            reset(connection)
            self._refused(Refused(stranger.where, NO_ROOM, "all places are taken by others"))
            return
        stranger.place = place
        self._here[stranger] = None
        self._loop.add_reader(connection.fileno(), self._hear, stranger)
        if self._sweeping is None:
            self._sweeping = self._loop.call_at(stranger.until, self._sweep)

    def _hear(self, stranger: _Stranger) -> None:
        """The stranger has said something, or left."""
        connection = stranger.connection
        self._loop.remove_reader(connection.fileno())
        try:
            data = connection.recv(RECORD + LONGEST_RECORD, socket.MSG_PEEK)
            needed = self._opens(data)
            waits = 0 < len(data) < needed and stranger.needed < needed
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed if waits else 1)
        except (BlockingIOError, InterruptedError):
            waits, needed, data = True, stranger.needed, b""
        except OSError:
            waits, needed, data = False, 0, b""
        if waits:
            stranger.needed = needed
            self._loop.add_reader(connection.fileno(), self._hear, stranger)
        elif not data or 0 < len(data) < needed:
            self._hang_up(stranger, LEFT, "it left before it had said enough")
        elif not needed:
            self._hang_up(stranger, JUNK, f"it speaks another protocol: it began with {data[:8]!r}")
        else:
            self._spoke[stranger] = None
            self._start_ticking()
            self._begin()

    # ---- proving ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Lets some of those who have spoken prove who they are."""
        while self._spoke and self._begun < BEGUN:
            known = (stranger for stranger in reversed(self._spoke) if self._strangers.knows(stranger.site))
            stranger = next(known, None) or next(reversed(self._spoke))
            del self._spoke[stranger]
            self._begun += 1
            stranger.task = self._loop.create_task(self._prove(stranger))

    async def _prove(self, stranger: _Stranger) -> None:
        try:
            await self._meet(stranger.connection, stranger.where)
        except (OSError, SecformerError) as error:
            why = UNPROVED if isinstance(error, AuthError) else LEFT
            self._refused(Refused(stranger.where, why, str(error) or type(error).__name__))
            stranger.connection.close()  # not reset: the peer may still read why
        except Exception:
            log.exception("unexpected")
            reset(stranger.connection)
        else:
            self._strangers.know(stranger.site)
        self._forget(stranger)

    # ---- hanging up ------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Hangs up on those whose time is over."""
        self._sweeping, now = None, self._loop.time()
        for stranger in list(self._here):
            if stranger.until > now:
                self._sweeping = self._loop.call_at(max(stranger.until, now + TICK), self._sweep)
                return
            self._hang_up(stranger, TOO_SLOW, f"it did not prove who it is within {self._patience:g} s")

    def _hang_up(self, stranger: _Stranger, why: str, problem: str) -> None:
        if stranger in self._here:
            self._refused(Refused(stranger.where, why, problem))
            self._end(stranger)

    def _end(self, stranger: _Stranger) -> None:
        self._forget(stranger)
        if stranger.task is None:
            self._loop.remove_reader(stranger.connection.fileno())
            reset(stranger.connection)
        else:  # the descriptor is the task's until it has ended
            reset_when_closed(stranger.connection)
            stranger.task.add_done_callback(lambda _: stranger.connection.close())
            stranger.task.cancel()

    def _forget(self, stranger: _Stranger) -> None:
        self._here.pop(stranger, None)
        self._spoke.pop(stranger, None)
        if stranger.place is not None:
            stranger.place.leave()


class _Stranger:
    """A connection whose peer has not proved who it is."""

    __slots__ = ("connection", "needed", "place", "site", "task", "until", "where")

    def __init__(self, connection: socket.socket, where: str, site: str, until: float):
        self.connection, self.where, self.site, self.until = connection, where, site, until
        self.needed = 1  # bytes that the system waits for before it wakes this process
        self.place: Place | None = None
        self.task: asyncio.Task[None] | None = None
