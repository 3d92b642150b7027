"""What the tests of the gateway share: models in plaintext that stand behind a real port, and one way to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from secformer import PlainModel
from secformer.cells.watch import REST, Watch
from secformer.gateway.cells import Cell
from secformer.gateway.desk import Desk
from secformer.gateway.server import GatewayServer, Port
from secformer.models.data.tokenizer import Texts
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.trained import plaintext
from secformer.models.run.options import settings_of
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import ProtocolError

KEY = "a-key-of-the-tests-0123456789"
JSON = {"Content-Type": "application/json"}


class Plain(PlainModel):
    """The twin, as something that a cell may ask: it notes its calls, and may fail as parties do.

    calls   how many texts each call had
    broken  None, or why it cannot answer
    """

    calls: list[int]
    broken: ProtocolError | None = None
    closed = False

    def __call__(self, texts: Texts, progress: Any = False) -> SecureOutput:
        self.calls = [*getattr(self, "calls", []), len(self._read(texts).rows)]
        if self.broken is not None:
            raise self.broken
        return super().__call__(texts, progress)

    def decoding(self) -> Any:
        if self.broken is not None:
            raise self.broken
        return super().decoding()

    def close(self) -> None:
        self.closed = True


def plain(folder: Path, **settings: Any) -> Plain:
    """A folder with exact functions, which needs no range profile and checks nothing."""
    own = ModelFolder(folder)
    return Plain(own, plaintext(own.architecture.spec), None,
                 settings_of({"embedding": "client", "guard": "off"} | settings))


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape; nothing else may be in the body."""
        (key, error), = self.json.items()
        assert key == "error" and set(error) == {"message", "type", "param", "code"}
        return dict(error)

    @property
    def events(self) -> list[Any]:
        """Server-sent events, up to [DONE]."""
        lines = self.body.decode().split("\n\n")
        assert lines.pop() == "" and all(line.startswith("data: ") for line in lines)
        return [json.loads(line[6:]) for line in lines[:-1]] + [
            "done" if lines[-1] == "data: [DONE]" else json.loads(lines[-1][6:])]


def said(server: GatewayServer, path: str, body: Any = None, *, method: str | None = None,
         headers: dict[str, str] | None = None) -> Said:
    """What a server answers. A body that is not bytes is sent as JSON."""
    connection = HTTPConnection(*server.address, timeout=120.0)
    try:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, content,
                           ({} if body is None else JSON) | (headers or {}))
        answer = connection.getresponse()
        return Said(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read())
    finally:
        connection.close()


@contextmanager
def serving(desks: list[Desk], **port: Any) -> Iterator[GatewayServer]:
    """A gateway on a port of its own."""
    with GatewayServer(Port(("127.0.0.1", 0), **port), desks) as server:
        yield server


def desk(name: str, *models: Any, rest: float = REST, drained: set[int] | None = None, **cell: Any) -> Desk:
    """A desk with a cell for each model. Those whose numbers are in `drained` are drained; the set may change."""
    gone = set() if drained is None else drained
    return Desk(name, [Cell(model, watch=Watch(f"cell {i}", rest=rest), drained=partial(gone.__contains__, i), **cell)
                       for i, model in enumerate(models)])
