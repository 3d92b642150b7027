"""Sessions: texts that grow at a party. Each belongs to the client that opened it, and there are limits.

A session is known to its client by the id of the request that opened it, and to the dealer by the name of that
request's run, under which its caches have their masks. Runs have names that are never used again, so caches have too.
A session in which anything fails is ended at both parties: no step is ever tried again on the same slots.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from secformer.models.run.decoding import Turn
from secformer.models.run.served_steps import PartyText, Shape
from secformer.mpc.dealer.names import RunKey
from secformer.mpc.errors import InputError
from secformer.roles.failures import AtLimit, ForClients, NoRoom, SessionEnded
from secformer.roles.messages import Half
from secformer.roles.settings import PartySettings

REMEMBERED = 4096  # ended sessions whose reason is remembered
MEGABYTE = 1 << 20
Key = tuple[str, str]  # client and id: a stranger's session is not found

log = logging.getLogger(__name__)


@dataclass(eq=False)
class TextSession:
    """A session.

    began, used  when it was opened, and when its last step ended: time.monotonic
    caches       what the streams of its caches are derived from; they are named by the run that opened it
    turn         the step that runs
    """

    key: Key
    text: PartyText = field(repr=False)
    began: float
    used: float
    caches: RunKey | None = None
    slots: int = 0
    turn: Turn | None = field(default=None, repr=False)

    @property
    def run(self) -> str:
        """The name of the run that opened it; "" while it is not open yet."""
        return "" if self.caches is None else self.caches.name


@dataclass(frozen=True, eq=False)
class Stepping:
    """A step of a session that is asked for: its shape, and how many tokens it stands behind."""

    session: TextSession
    shape: Shape
    keep: int

    @property
    def state(self) -> str:
        """What must be the same at both parties before the step."""
        return f"{self.session.run}:{self.session.text.timeline.digest}"


class Sessions:
    """A party's sessions. Thread-safe.

    new         makes a text
    slot_bytes  bytes of each slot of a text
    """

    def __init__(self, settings: PartySettings, new: Callable[[], PartyText], slot_bytes: int):
        self._settings, self._new, self._slot_bytes = settings, new, slot_bytes
        self._open: OrderedDict[Key, TextSession] = OrderedDict()  # the one that was used last comes last
        self._ended: OrderedDict[Key, str] = OrderedDict()
        self._lock = threading.RLock()

    def count(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._open)

    def asked(self, half: Half, client: str) -> Stepping:
        """The step that a half asks for. Makes room for it, and changes nothing else.

        Raises SessionEnded where the client has no such session any more, InputError for a step that cannot be,
        ForClients where another is running, AtLimit or NoRoom where there is no room, ModelError where the model
        generates no text.
        """
        if half.step is None:
            raise InputError("this request continues no text")
        key, now = (client, half.step.session), time.monotonic()
        with self._lock:
            self.expire()
            if half.step.session != half.request:
                session = self._found(key)
            elif key in self._open or key in self._ended:
                raise ForClients("this session was opened before; begin a new one")
            else:
                session = TextSession(key, self._new(), now, now)
            if session.turn is not None:
                raise ForClients("a step of this session is still running; send the next one when it has come back")
            shape = session.text.shape(int(half.lengths[0]), half.step.keep, half.step.last)
            self._make_room(session, shape)
            return Stepping(session, shape, half.step.keep)

    def admit(self, client: str) -> None:
        """Raises AtLimit where a client may not open another session, because none of its own is idle."""
        with self._lock:
            mine = [session for key, session in self._open.items() if key[0] == client]
            if len(mine) >= self._settings.client_sessions and all(session.turn is not None for session in mine):
                raise AtLimit(f"one client may have {self._settings.client_sessions} sessions open here, and "
                                      f"all of this one's are running a step; begin the session when one has ended")

    def names(self) -> list[str]:
        """The names of the caches of those that are open."""
        with self._lock:
            return [session.run for session in self._open.values()]

    def begin(self, stepping: Stepping, key: RunKey) -> None:
        """Both parties have agreed to run the step, under that key: its slots are used up from now on. Of the key of
        the run that opens it, the session keeps what its caches need."""
        session = stepping.session
        with self._lock:
            if session.caches is None:
                session.caches = key.caches
                self._open[session.key] = session
            session.slots = stepping.shape[1]
            session.turn = session.text.begun(stepping.shape, stepping.keep)

    def done(self, session: TextSession) -> None:
        """The step has ended well."""
        with self._lock:
            session.turn, session.used = None, time.monotonic()
            if session.key in self._open:
                self._open.move_to_end(session.key)

    def end(self, client: str, name: str, reason: str) -> None:
        """Ends a client's session, and refuses it from now on, whether it was open or not."""
        with self._lock:
            session = self._open.pop((client, name), None)
            if session is not None or (client, name) not in self._ended:
                self._ended[client, name] = reason
            while len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        if session is not None:
            log.info("session ended", extra={"fields": {"session": session.run, "client": client, "reason": reason}})

    def end_of(self, client: str, reason: str) -> None:
        """Ends every session of a client."""
        with self._lock:
            for owner, name in list(self._open):
                if owner == client:
                    self.end(client, name, reason)

    def end_all(self, reason: str) -> None:
        """Ends every session: the parties' link has ended, so they may not agree on what they keep."""
        with self._lock:
            for client, name in list(self._open):
                self.end(client, name, reason)

    def expire(self) -> None:
        """Ends those that are too old, or were not used for too long."""
        now, settings = time.monotonic(), self._settings
        with self._lock:
            for (client, name), session in list(self._open.items()):
                if session.turn is not None:
                    continue
                if now - session.began >= settings.session_age:
                    self.end(client, name, f"it was open for {settings.session_age:g} s, as long as sessions may be")
                elif now - session.used >= settings.session_idle:
                    self.end(client, name, f"it was not used for {settings.session_idle:g} s")

    def _found(self, key: Key) -> TextSession:
        if key in self._open:
            return self._open[key]
        if key in self._ended:
            raise SessionEnded(f"the session has ended ({self._ended[key]}); begin a new one")
        raise SessionEnded("there is no such session here; one that was may have ended when a party was restarted, so "
                           "begin a new one")

    def _make_room(self, session: TextSession, shape: Shape) -> None:
        """Ends the oldest idle sessions of the same client, until there is room. Raises AtLimit or NoRoom
        where that is not enough, ForClients for a text that never fits."""
        settings, client = self._settings, session.key[0]
        most, room = settings.sessions, settings.session_mb * MEGABYTE // self._slot_bytes
        my_most, my_room = settings.client_sessions, settings.client_session_mb * MEGABYTE // self._slot_bytes
        if shape[1] > min(room, my_room):
            raise ForClients(f"a text of {shape[1]} slots takes {shape[1] * self._slot_bytes / MEGABYTE:.0f} MB "
                             f"here, more than {'session_mb' if shape[1] > room else 'client_session_mb'} allows; "
                             f"send a shorter one")
        while True:
            others = [each for each in self._open.values() if each is not session]
            mine = [each for each in others if each.key[0] == client]
            mine_fit = len(mine) < my_most and _slots(mine) + shape[1] <= my_room
            if mine_fit and len(others) < most and _slots(others) + shape[1] <= room:
                return
            idle = next((each for each in mine if each.turn is None), None)
            if idle is None and not mine_fit:
                raise AtLimit(f"one client may have {my_most} sessions of {settings.client_session_mb} MB here,"
                                      f" and all of this one's are running a step; try again when one has ended")
            if idle is None:
                raise NoRoom(f"{len(others)} sessions are open here, and there is no room for one more; try "
                                    f"again later")
            self.end(*idle.key, "another session of the same client needed its room")


def _slots(sessions: Iterable[TextSession]) -> int:
    return sum(each.slots for each in sessions)
