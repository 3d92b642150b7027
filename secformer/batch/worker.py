"""A cell's worker: holds connections to the cell's parties, and answers calls. It runs in a thread or a Ray actor."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from secformer.batch.tasks import Answers, Task, Unit
from secformer.gateway.cells import Model
from secformer.mpc.errors import InputError, ProtocolError, RangeError
from secformer.roles.asking import Busy
from secformer.roles.client import connect
from secformer.roles.settings import ClientSettings

Opener = Callable[[ClientSettings], Model]  # how a worker opens its cell's model, once per lane


class Kind(Enum):
    """Why a call failed."""

    ROWS = "rows"    # something about its texts
    BUSY = "busy"    # a party says that this client is at a limit
    CELL = "cell"    # the parties failed
    WORKER = "worker"  # the worker ended
    OURS = "ours"    # none of these: the job cannot go on


@dataclass(frozen=True)
class Failed:
    """A call without an answer. `after`: seconds after which a busy party may take it; None where it names none."""

    kind: Kind
    problem: str
    after: float | None = None


Outcome = Answers | Failed


class Worker:
    """Answers calls of one cell. Several threads may ask: as many calls run at the same time as the cell's settings
    have `in_flight`, each in a connection (lane) of its own, so that the parties always have the next one."""

    def __init__(self, settings: ClientSettings, task: Task, opener: Opener):
        self._settings, self._task, self._opener = settings, task, opener
        self._lanes: queue.SimpleQueue[Model | None] = queue.SimpleQueue()
        self._models: list[Model] = []
        for _ in range(settings.in_flight):
            self._lanes.put(None)

    def ask(self, units: Sequence[Unit]) -> Outcome:
        """The answers of all units, or why there are none. Raises nothing."""
        model = self._lanes.get()
        try:
            if model is None:
                model = self._opener(self._settings)
                self._models.append(model)
            return self._task.ask(model, units, model.architecture)
        except Busy as error:
            return Failed(Kind.BUSY, str(error), error.after)
        except (InputError, RangeError) as error:
            return Failed(Kind.ROWS, str(error))
        except (ProtocolError, OSError) as error:
            return Failed(Kind.CELL, f"{type(error).__name__}: {error}")
        except Exception as error:
            return Failed(Kind.OURS, f"{type(error).__name__}: {error}")
        finally:
            self._lanes.put(model)

    def close(self) -> None:
        """Hangs up. Calls that run end soon, with an error."""
        for model in self._models:
            model.close()


def open_served(settings: ClientSettings) -> Model:
    """The model that a cell's parties hold, for one request at a time."""
    return connect(replace(settings, in_flight=1))
