"""What a party tells its clients about itself, at /v1/status: whether it serves, how much waits and runs, what it runs.

Counts are of all clients together. Nothing in it names a client, a request, a shape, an address or a path: the whole
reason why a party is not ready is for its operator, at the metrics port and in the log.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from secformer.mpc.net.notes import hexadecimal, whole
from secformer.mpc.prg import FORMAT
from secformer.version import __version__

if TYPE_CHECKING:  # clients, who read what is told, may lack the extra `serve`
    from secformer.roles.audit import Auditing
    from secformer.roles.jobs import Jobs
    from secformer.roles.monitoring import Status

STATUS = "/v1/status"
NOT_TOLD = "not told"  # the kind of refusal where the operator has turned it off
EPOCH_BYTES = 4        # of an epoch's name: enough to see that it has changed
LONGEST = 200          # characters of a text
UNAUDITED = "its audit log cannot be written"


@dataclass(frozen=True)
class Told:
    """What a party tells.

    version   of the package
    streams   the format of streams; the two parties and the dealer must have the same
    model     the digest of the model's description, as clients know it
    epoch     the first digits of the epoch's name; "" before the party has joined one
    problem   why it answers no requests, in general words; "" if it answers
    waiting   requests that wait
    running   requests that run
    material  requests that its store has material for, of all shapes together; None at party 0, which has no store
    """

    version: str
    streams: str
    model: str
    epoch: str
    problem: str
    waiting: int
    running: int
    material: int | None

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def read(cls, facts: Any) -> Self:
        """From JSON that another party or version may have written. Raises ValueError, KeyError, TypeError."""
        for name in ("version", "streams", "problem"):
            _require_short(facts[name])
        hexadecimal(facts["model"], 32)
        hexadecimal(facts["epoch"], EPOCH_BYTES if facts["epoch"] else 0)
        for name in ("waiting", "running", *(() if facts["material"] is None else ("material",))):
            whole(facts[name])
        return cls(**{name: facts[name] for name in cls.__dataclass_fields__})


def told(model: str, jobs: Jobs, status: Status, audit: Auditing) -> Told:
    """What a party tells now. Each figure is looked up only here, so requests pay nothing for it."""
    return Told(__version__, FORMAT, model, status.epoch()[:2 * EPOCH_BYTES],
                status.told or (UNAUDITED if audit.problem else ""), jobs.waiting(), status.running(), status.material)


def _require_short(text: Any) -> None:
    """Raises ValueError for what is no short text that a terminal may show."""
    if not isinstance(text, str) or len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"a printable text of at most {LONGEST} characters is needed")
