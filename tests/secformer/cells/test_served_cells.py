"""Two real cells of the shipped model, each provisioned by itself: their status, and a gateway in front of them while a
party of one is killed and comes back. Cost: about 40 processor seconds."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the served roles need the extra `serve`")
pytest.importorskip("uvicorn", reason="the served roles need the extra `serve`")
pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")

from cells_lab import cells_file
from commands_lab import answer
from gateway_lab import said, serving
from roles_lab import log_lines, no_serial_twice, until

from secformer import demo_model
from secformer.cells.alike import require_alike, traits_of
from secformer.cells.drained import drain, resume
from secformer.cells.health import CellHealth, Probe
from secformer.cells.listing import CellList, load_cells
from secformer.cli import main
from secformer.gateway.desk import desks_of
from secformer.roles.settings import load_party
from secformer.roles.stocking import stock
from secformer.roles.trial import LocalRoles
from secformer.version import __version__

PARTIES = {"deadline": 20.0, "dealer_wait": 2.0, "threads": 1, "backend": "numpy"}
TEXTS = {"input": ["A wonderful film."], "model": "m"}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LocalRoles]]:
    folder = tmp_path_factory.mktemp("cells")
    found = {name: LocalRoles(folder / name, demo_model(), settings=PARTIES) for name in "ab"}
    with found["a"], found["b"]:
        for roles in found.values():
            roles.wait_ready()
        yield found
    for roles in found.values():
        no_serial_twice(roles)


@pytest.fixture(scope="module")
def listed(cells: dict[str, LocalRoles], tmp_path_factory: pytest.TempPathFactory) -> CellList:
    files = {name: roles.settings("client") for name, roles in cells.items()}
    return load_cells(cells_file(tmp_path_factory.mktemp("list"), files))


def health(listed: CellList, name: str) -> CellHealth:
    cell = next(cell for cell in listed if cell.name == name)
    return Probe(cell.client)()


def answers(roles: LocalRoles) -> int:
    """How many requests a cell has answered."""
    return sum(line["event"] == "answered" for line in log_lines(roles, "party0"))


def test_cells_that_are_ready(cells: dict[str, LocalRoles], listed: CellList,
                              capsys: pytest.CaptureFixture[str]) -> None:
    """Each was provisioned by itself: the models' digests differ, and nothing else."""
    stocked = stock(load_party(cells["a"].settings("party1")), [3], 2)
    assert stocked.added == 2
    until(lambda: health(listed, "a").parties[1].told.material == 2)  # type: ignore[union-attr]
    found = answer(capsys, "cells", "status", "--cells", str(listed.path))
    assert found["ready"] is True and found["notes"] == []
    models = set()
    for cell in found["cells"]:
        assert cell["ready"] and not cell["drained"] and cell["problem"] == ""
        told = [party["told"] for party in cell["parties"]]
        assert [(each["version"], each["waiting"], each["running"]) for each in told] == [(__version__, 0, 0)] * 2
        assert told[0]["material"] is None and told[1]["material"] == (2 if cell["name"] == "a" else 0)
        linked = [line for line in log_lines(cells[cell["name"]], "party0") if line["event"] == "linked"]
        assert told[0]["epoch"] == told[1]["epoch"] == linked[-1]["epoch"][:8]
        models.add(told[0]["model"])
    assert len(models) == 2 and found["cells"][0]["parties"][0]["told"]["epoch"] != \
        found["cells"][1]["parties"][0]["told"]["epoch"]
    require_alike([(cell.name, traits_of(cell.client)) for cell in listed], "")


def test_the_parties_check_who_asks_for_their_status(listed: CellList) -> None:
    """A client of another authority learns nothing: not even that nothing is told."""
    one, other = listed.cells
    found = Probe(replace(other.client, party0=one.client.party0))()
    assert found.parties[0].told is None and found.parties[0].problem and found.parties[1].ready


class Callers:
    """Threads that ask a gateway, one request after the other, until they are stopped."""

    def __init__(self, server: Any, count: int = 2):
        self.found: list[tuple[int, str]] = []
        self._server, self._stop = server, threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.wait(0.1):
            came = said(self._server, "/v1/classify", TEXTS)
            self.found.append((came.status, came.body.decode()))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120.0)
            assert not thread.is_alive(), "a request hangs"


def test_a_party_is_killed_and_comes_back_and_no_request_is_lost(cells: dict[str, LocalRoles], listed: CellList,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """The party comes back with its status turned off: then its cell is let in again without it."""
    broken = cells["b"]
    with serving(desks_of([], [("m", listed)])) as server:
        desk = server._gateway.desks["m"]
        callers = Callers(server)
        until(lambda: answers(cells["a"]) >= 1 and answers(broken) >= 1, 90.0)
        broken.stop("party1", signal.SIGKILL)
        until(lambda: desk.cells[1].watch.away, 90.0)
        before = len(callers.found)
        until(lambda: len(callers.found) >= before + 6, 90.0)

        assert main(["cells", "status", "--cells", str(listed.path)]) == 1
        out, err = capsys.readouterr()
        assert "party 1 unreachable" in out and "1 of 2 cells are not known to be ready: b" in err
        until(lambda: health(listed, "b").parties[0].problem != "", 90.0)
        first, second = health(listed, "b").parties
        assert first.told is not None and first.reached and not second.reached
        assert "127.0.0.1" not in first.problem and "/" not in first.problem, "the reason is for its operator"
        served = answers(broken)
        assert desk.cells[1].watch.away and answers(broken) == served, "no request is spent on it"

        settings = broken.settings("party1")
        settings.write_text(settings.read_text().replace("# status = true", "status = false"))
        broken.start("party1")
        broken.wait_ready()
        until(lambda: answers(broken) > served, 90.0)  # nobody told the gateway
        callers.stop()
        assert not desk.cells[1].watch.away
        assert [each for each in callers.found if each[0] != 200] == []
    found = health(listed, "b")
    assert found.problem == "" and not found.ready and found.parties[1].reached and found.parties[1].told is None
    assert main(["cells", "status", "--cells", str(listed.path)]) == 1
    assert "not told" in capsys.readouterr().out


def test_a_gateway_leaves_drained_cells_alone(cells: dict[str, LocalRoles], listed: CellList) -> None:
    with serving(desks_of([], [("m", listed)])) as server:
        drain(listed.path, "b")
        until(lambda: server._gateway.desks["m"].cells[1].drained())
        served = answers(cells["b"])
        for _ in range(3):
            assert said(server, "/v1/classify", TEXTS).status == 200
        assert answers(cells["b"]) == served
        drain(listed.path, "a")
        until(lambda: server._gateway.desks["m"].cells[0].drained())
        came = said(server, "/v1/classify", TEXTS)
        assert came.status == 503 and came.error["code"] == "drained" and int(came.headers["retry-after"]) > 0
        resume(listed.path, "b")
        until(lambda: said(server, "/v1/classify", TEXTS).status == 200)
        assert answers(cells["b"]) > served
        resume(listed.path, "a")
