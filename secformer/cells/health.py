"""How a cell does: both its parties are asked at the same time, by a light question for which they compute nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from secformer.mpc.errors import PeerLost, SecformerError
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import Context
from secformer.roles.asking import PartyConnection
from secformer.roles.settings import ClientSettings
from secformer.roles.telling import Told

SECONDS = 5.0  # that a cell gets to answer


@dataclass(frozen=True)
class PartyHealth:
    """How a party does.

    told     what it says of itself; None if it does not tell, or was not reached
    problem  why it answers no requests; "" if it answers, or does not tell
    reached  whether something has answered at its address
    """

    told: Told | None = None
    problem: str = ""
    reached: bool = True

    @property
    def ready(self) -> bool:
        """Whether it says that it answers requests."""
        return self.told is not None and not self.problem


@dataclass(frozen=True)
class CellHealth:
    """How both parties of a cell do."""

    parties: tuple[PartyHealth, PartyHealth]

    @property
    def ready(self) -> bool:
        """Whether both parties say that they answer requests."""
        return all(party.ready for party in self.parties)

    @property
    def reached(self) -> bool:
        """Whether something has answered at both addresses."""
        return all(party.reached for party in self.parties)

    @property
    def problem(self) -> str:
        """Why a request would fail, as far as the parties tell; "" if nothing is known against it."""
        return "; ".join(f"party {rank}: {party.problem}" for rank, party in enumerate(self.parties) if party.problem)


class Probe:
    """Asks the parties of one cell how they do, each time on connections of its own.

    model    the digest of the model that they must hold; "": any
    seconds  that both parties get together
    """

    def __init__(self, client: ClientSettings, *, model: str = "", seconds: float = SECONDS):
        """Nothing is sent. Raises SettingsError for certificates that cannot be used."""
        self._addresses, self._model, self._seconds = (client.party0, client.party1), model, seconds
        self._credentials = Credentials(client.tls)

    def begin(self) -> Asked:
        """Asks, and does not wait for the answers."""
        context, end = self._credentials.client(), time.monotonic() + self._seconds
        return Asked([_Question(rank, address, context, self._seconds, self._model)
                      for rank, address in enumerate(self._addresses)], end)

    def __call__(self) -> CellHealth:
        """How the cell does. It is known after `seconds` at the latest, whatever the parties do."""
        return self.begin().answer()


class Asked:
    """A cell that was asked how it does."""

    def __init__(self, questions: Sequence[_Question], end: float):
        self._questions, self._end = questions, end

    def answer(self) -> CellHealth:
        """Waits for the answers, until the deadline."""
        first, second = (question.answer(self._end) for question in self._questions)
        return CellHealth((first, second))


def look(probes: Sequence[Probe]) -> list[CellHealth]:
    """How cells do, all asked at the same time."""
    return [asked.answer() for asked in [probe.begin() for probe in probes]]


class _Question:
    """What one party is asked, in a thread that nobody waits for beyond the deadline."""

    def __init__(self, rank: int, address: tuple[str, int], context: Context, seconds: float, model: str):
        self._party = PartyConnection(rank, address, context, seconds, grace=0.0)
        self._seconds, self._model = seconds, model
        self._found: PartyHealth | None = None
        self._thread = threading.Thread(target=self._ask, name=f"status of party {rank}", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            told = self._party.status()
            self._found = PartyHealth(told, self._problem(told))
        except PeerLost as error:
            self._found = PartyHealth(problem=str(error), reached=False)
        except SecformerError as error:
            self._found = PartyHealth(problem=str(error))
        finally:
            self._party.close()

    def _problem(self, told: Told | None) -> str:
        if told is not None and self._model and told.model != self._model:
            return (f"holds model {told.model[:16]}, but this client knows {self._model[:16]}; use the clients' folder "
                    f"of the same provisioning")
        return told.problem if told is not None else ""

    def answer(self, end: float) -> PartyHealth:
        self._thread.join(max(0.0, end - time.monotonic()))
        if (found := self._found) is None:
            self._party.hang_up()
            return PartyHealth(problem=f"no answer within {self._seconds:g} s", reached=False)
        return found
