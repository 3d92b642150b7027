"""What each client may ask per day, because many chosen texts tell something about the weights (model extraction).

Each party counts by itself what it has answered, in a journal on disk. A day is a day of UTC.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TextIO

from secformer.mpc.dealer.files import owner_only, rewrite
from secformer.mpc.errors import SecformerError, SettingsError, StoreError
from secformer.mpc.net.notes import text as named
from secformer.mpc.net.notes import whole
from secformer.mpc.strict_json import read_own

DAY = 86400    # seconds
JOURNAL = "budgets.log"  # its name in the folder of the party's state
MOST = 1 << 53   # counts go up to here
LAST = 2_932_896 # the last day that has a date of four digits
KEPT = 10_000  # lines of the journal, before it is summed up

log = logging.getLogger(__name__)


class BudgetSpent(SecformerError):
    """A client has asked as much today as it may. `renews`: seconds until the next day."""

    def __init__(self, message: str, renews: float):
        super().__init__(message)
        self.renews = renews


@dataclass(frozen=True)
class Budget:
    """What one client may ask per day; None: any number. A step of a text that is generated counts a text for each
    token whose logits it wants."""

    requests_per_day: int | None = None
    texts_per_day: int | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise SettingsError(f"budgets: {f.name} must be a whole number of at least 0, got {value!r}")


@dataclass(frozen=True)
class Budgets:
    """The budget of all clients, and those of clients that have another, by the name in their certificate."""

    common: Budget = Budget()
    clients: Mapping[str, Budget] = field(default_factory=dict, hash=False)

    TEMPLATE: ClassVar = (
        "[budgets]", "# how much each client may ask per day (UTC), against model extraction; without a number, as much"
        "# as it likes", "# requests_per_day = 10000", "# texts_per_day = 100000", "# [budgets.clients.NAME]",
        "# texts_per_day = 500")

    @classmethod
    def read(cls, given: Any) -> Self:
        """From the table of a settings file. Raises SettingsError."""
        names = [f.name for f in fields(Budget)]
        if not isinstance(given, dict):
            raise SettingsError(f"[budgets] must be a table with the keys {', '.join(names)} and clients, got "
                                f"{given!r}")
        clients = given.get("clients", {})
        if not isinstance(clients, dict):
            raise SettingsError(f"budgets.clients must be a table of tables, such as [budgets.clients.alice]; got "
                                f"{clients!r}")
        common = _budget("budgets", {key: value for key, value in given.items() if key != "clients"}, names)
        own = {name: _budget(f"budgets.clients.{name}", table, names) for name, table in clients.items()}
        return cls(common, {name: Budget(*(getattr(common, key) if each[key] is None else each[key] for key in names))
                            for name, each in ((name, vars(budget)) for name, budget in own.items())})

    def of(self, client: str) -> Budget:
        """The budget of a client."""
        return self.clients.get(client, self.common)


def _budget(where: str, given: Any, names: list[str]) -> Budget:
    if not isinstance(given, dict) or set(given) - set(names):
        raise SettingsError(f"{where} must be a table with the keys {', '.join(names)}"
                            f"{' (and clients)' if where == 'budgets' else ''}, got {given!r}")
    return Budget(**given)


class Ledger:
    """What clients have asked today. Thread-safe.

    path   the journal
    clock  the time as `time.time` gives it; a clock that is turned back begins no day anew
    """

    def __init__(self, budgets: Budgets, path: Path, clock: Callable[[], float] = time.time):
        """Raises StoreError for a journal that cannot be read."""
        self._budgets, self._path, self._clock = budgets, path, clock
        self._lock = threading.Lock()
        self._day = -1
        self._asked: dict[str, tuple[int, int]] = {}         # requests and texts that were answered
        self._reserved: dict[str, Counter[str]] = {}         # those that are here
        self._told: set[str] = set()
        self._file: TextIO | None = None
        for day, client, requests, texts in self._lines():
            if day > self._day:
                self._day, self._asked = day, {}
            if day == self._day:
                self._add(client, requests, texts)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sum_up()
        if self._day > self._clock() // DAY:
            log.warning("budgets", extra={"fields": {"problem": f"{path} counts a later day than today; nothing is "
                                                                f"renewed before that day is over, unless the file is "
                                                                f"removed"}})

    def reserve(self, client: str, texts: int) -> Reservation:
        """Sets aside what a request asks until it is answered or given up. Raises BudgetSpent."""
        budget = self._budgets.of(client)
        with self._lock:
            now = self._renew()
            requests_before, texts_before = self._asked.get(client, (0, 0))
            here = self._reserved.setdefault(client, Counter())
            for what, most, before, more in (
                    ("requests", budget.requests_per_day, requests_before, 1),
                    ("texts", budget.texts_per_day, texts_before, texts)):
                if most is not None and before + here[what] + more > most:
                    raise self._spent(client, what, most, before + here[what], more, now)
            here.update({"requests": 1, "texts": texts})
        return Reservation(self, client, texts)

    def share(self) -> float:
        """The largest fraction of its budget that a client has spent today."""
        with self._lock:
            self._renew()
            return max((asked / most if most else 1.0 for client, both in self._asked.items()
                        for asked, most in zip(both, vars(self._budgets.of(client)).values(), strict=True)
                        if most is not None), default=0.0)

    def spent(self) -> int:
        """How many clients were refused today because their budget was spent."""
        with self._lock:
            self._renew()
            return len(self._told)

    def close(self) -> None:
        """Closes the journal."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _end(self, client: str, texts: int, answered: bool) -> None:
        with self._lock:
            here = self._reserved[client]
            here.subtract({"requests": 1, "texts": texts})
            if not here["requests"]:
                del self._reserved[client]
            if not answered or self._budgets.of(client) == Budget():
                return
            self._renew()
            self._add(client, 1, texts)
            try:
                self._write([self._day, client, 1, texts])
            except OSError as error:
                raise StoreError(f"{self._path} cannot be written ({error.strerror or error}), so what the client has "
                                 f"asked cannot be counted; make room on the disk") from error
            if self._count > KEPT:
                self._sum_up()

    def _spent(self, client: str, what: str, most: int, before: int, more: int, now: float) -> BudgetSpent:
        renews = (self._day + 1) * DAY - now
        if client not in self._told:
            self._told.add(client)
            log.warning("budget spent", extra={"fields": {"client": client, "what": what, "per day": most}})
        day = time.strftime("%Y-%m-%d %H:%M", time.gmtime((self._day + 1) * DAY))
        return BudgetSpent(f"this client may ask {most} {what} per day and has asked {before}, so {more} more are too "
                           f"many; its budget renews at {day} UTC", renews)

    def _renew(self) -> float:
        """Begins a new day, if it is one. The time."""
        now = self._clock()
        if now // DAY > self._day:
            self._day, self._asked, self._told = int(now // DAY), {}, set()
            self._sum_up()
        return now

    def _add(self, client: str, requests: int, texts: int) -> None:
        before = self._asked.get(client, (0, 0))
        self._asked[client] = min(before[0] + requests, MOST), min(before[1] + texts, MOST)

    # ---- the journal ----------------------------------------------------------------------------------------------

    def _lines(self) -> list[tuple[int, str, int, int]]:
        try:
            text = self._path.read_text("utf-8") if self._path.exists() else ""
            rows = [read_own(line) for line in text.split("\n")[:-1]]  # the last one may be cut off: not answered
            return [(whole(day, 0, LAST), named(client), whole(requests, 0, MOST), whole(texts, 0, MOST))
                    for day, client, requests, texts in rows]
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{self._path}, which says what clients have asked today, cannot be read "
                             f"({type(error).__name__}: {error}); mend it, or remove it to renew all "
                             f"budgets") from error

    def _sum_up(self) -> None:
        """Writes the journal anew, with one line for each client, and goes on from there."""
        rewrite(self._path, "".join(json.dumps([self._day, client, *both]) + "\n"
                                    for client, both in self._asked.items()))
        if self._file is not None:
            self._file.close()
        self._file, self._count = self._opened(), len(self._asked)

    def _opened(self) -> TextIO:
        return open(self._path, "a", encoding="utf-8", opener=owner_only)

    def _write(self, line: list[Any]) -> None:
        file = self._opened() if self._file is None else self._file
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
        self._count += 1


class Reservation:
    """What a request asks of its client's budget, until it ends one way or the other."""

    def __init__(self, ledger: Ledger, client: str, texts: int):
        self._ledger, self._client, self._texts, self._open = ledger, client, texts, True

    def spend(self) -> None:
        """It was answered: counted, on disk. Raises StoreError."""
        self._end(True)

    def release(self) -> None:
        """It was not answered, if it was not `spend` before."""
        self._end(False)

    def _end(self, answered: bool) -> None:
        was, self._open = self._open, False
        if was:
            self._ledger._end(self._client, self._texts, answered)
