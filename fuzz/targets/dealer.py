"""The dealer's port, behind TLS: what a role that has proved itself may send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzz.mutators import json_text
from fuzz.target import Read, Target
from fuzz.targets.channels import Received, noted
from fuzz.targets.plans import signed
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import SecformerError
from secformer.mpc.net.tcp import StreamChannel
from secformer.mpc.net.tls import Identity
from secformer.mpc.strict_json import read_own
from secformer.roles.certificates import init
from secformer.roles.dealer_server import DealerServer
from secformer.roles.settings import DealerSettings

MOST_WORDS = 1 << 16  # of a plan that is dealt here: a dealer's time and memory go with what a plan asks for


class FromParty(StreamChannel):
    """A channel of a party that has proved its role, without TLS below it. It asks twice; the second time, it names the
    plan by its digest."""

    def __init__(self, data: bytes, role: str):
        super().__init__(Received(noted(data) + noted(_again(data))), role, 5.0)
        self.role = self.name = role

    def check(self) -> None:
        """Its certificate holds."""

    def comes(self, seconds: float) -> bool:
        """It says what it has to say without a pause."""
        return True


@contextmanager
def dealers(folder: Path) -> Iterator[Read]:
    init(folder / "roles")
    own = folder / "roles" / "dealer"
    identity = Identity(own / "authority.pem", own / "dealer.pem", own / "dealer.key")
    server = DealerServer(DealerSettings(("127.0.0.1", 0), folder / "state", identity, backend="numpy"))

    def read(data: bytes) -> None:
        if _large(data):
            return
        for role in ("party1", "party0"):
            channel = FromParty(data, role)
            try:
                server._serve(channel)  # type: ignore[arg-type]
            finally:
                channel.close()

    try:
        yield read
    finally:
        server.close()


def _again(data: bytes) -> bytes:
    """The note as a party sends it once the dealer knows the plan; the same one where it has none."""
    note = _note(data)
    try:
        return json.dumps(note | {"plan": Plan.from_dict(note["plan"]).digest}).encode()
    except (SecformerError, AttributeError, KeyError, TypeError):
        return data


def _large(data: bytes) -> bool:
    note = _note(data)
    return any(_words(note.get(key)) > MOST_WORDS for key in ("plan", "weights")) | (
        isinstance(note.get("count"), int) and note["count"] > 4)


def _note(data: bytes) -> dict[str, Any]:
    """Empty for what is not one."""
    try:
        note = read_own(data)
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _words(facts: Any) -> int:
    try:
        return sum(f.count for kind in Plan.from_dict(facts).kinds for f in kind.layout.fields.values())
    except (SecformerError, AttributeError, TypeError):
        return 0


TARGETS = (Target("dealer", ("secformer/roles/dealer_server.py", "secformer/roles/dealing.py",
                             "secformer/roles/asks.py"), dealers,
                  json_text(signed), below=("secformer.mpc.dealer.plan",)),)
