"""Two requests in flight between two engines in one process, over TLS, with the dealer beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")

from engines_lab import Engines, Gate
from roles_lab import no_serial_twice, right, serials, until

from secformer.mpc.errors import Desync, ProtocolError
from secformer.mpc.net.tls import client_context, hang_up
from secformer.roles import engine as module
from secformer.roles.linking import connect_link
from secformer.roles.settings import load_party

SHORT, LONGER = "Dull.", "A clumsy script, saved by two brilliant performances."


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with Engines(tmp_path_factory.mktemp("engines")) as engines:
        yield engines
    no_serial_twice(engines.roles)


@pytest.fixture
def up(engines: Engines) -> Engines:
    engines.ready()
    return engines


class Asking:
    """A call in a thread of its own."""

    def __init__(self, engines: Engines, texts: Any):
        self.found: Any = None
        self.error: BaseException | None = None
        self._client, self._texts = engines.client(), texts
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self.found = self._client.infer(self._texts)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self._thread.join(90)
        assert not self._thread.is_alive(), "the call hangs"
        self._client.close()


def held_up(up: Engines) -> tuple[Asking, Gate, int]:
    """A request that party 1 stops in the middle, its gate, and the other slot."""
    gates = [Gate(up.channel(1, slot), after=40) for slot in (0, 1)]
    asking = Asking(up, LONGER)
    until(lambda: any(gate.reached.is_set() for gate in gates), 60)
    slot = next(slot for slot, gate in enumerate(gates) if gate.reached.is_set())
    gates[1 - slot].open()
    return asking, gates[slot], 1 - slot


def test_a_request_overtakes_one_that_waits_for_the_network(up: Engines) -> None:
    """Different lengths, so different plans: the second begins and ends while the first is held up in the middle."""
    first, gate, _ = held_up(up)
    second = Asking(up, SHORT)
    second.end()
    assert second.error is None
    right(second.found, SHORT)
    running = up.engines[1]._running
    until(lambda: running._live == 1)  # what gives way to requests knows of the first one
    assert first.found is None and first.error is None
    assert up.engines[1].running() == 1 and len({engine.epoch() for engine in up.engines} - {""}) == 1
    gate.open()
    first.end()
    assert first.error is None
    right(first.found, LONGER)
    until(lambda: not running._live)
    before, after = (int(line.split()[-1]) for line in serials(up.roles, "party1")[-2:])
    assert after == before + 1 and serials(up.roles, "party0")[-2:] == serials(up.roles, "party1")[-2:]


def test_the_rounds_of_two_halves_of_a_call_interleave(up: Engines) -> None:
    """One batch of two texts becomes two requests. The answers are those of the texts one by one, up to rounding."""
    texts = [SHORT, "Fine!"]
    order: list[int] = []
    for slot in (0, 1):
        channel = up.channel(0, slot)
        real = channel.receive
        channel.receive = lambda *args, slot=slot, real=real: order.append(slot) or real(*args)  # type: ignore[method-assign]
    before = len(serials(up.roles, "party0"))
    with up.client() as client:
        out = client.infer(texts)
        alone = [client.infer(text) for text in texts]
    assert len(serials(up.roles, "party0")) == before + 4
    both = order[: 2 * alone[0].cost.rounds]  # type: ignore[union-attr]
    turns = sum(a != b for a, b in pairwise(both))
    assert set(both) == {0, 1} and turns > 20, "one ran after the other"
    right(out, texts)
    assert np.abs(out.logits - np.concatenate([each.logits for each in alone])).max() < 5e-3
    assert out.cost.rounds == alone[0].cost.rounds == alone[1].cost.rounds  # type: ignore[union-attr]
    assert out.cost.bytes == sum(each.cost.bytes for each in alone)  # type: ignore[union-attr]


@pytest.mark.parametrize("problem", [Desync("it broke off"), ZeroDivisionError("heron")])
def test_a_request_that_fails_ends_the_link_and_both_requests(up: Engines, problem: Exception) -> None:
    first, held, other = held_up(up)
    broken = Gate(up.channel(1, other), after=40, problem=problem)
    second = Asking(up, SHORT)
    assert broken.reached.wait(60)
    held.open()
    for asking in (first, second):
        asking.end()
        assert isinstance(asking.error, ProtocolError) and "heron" not in str(asking.error)
    assert ("it broke off" if isinstance(problem, Desync) else "unexpected ZeroDivisionError") in str(second.error)
    answered_again(up)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_peer_that_vanishes(up: Engines, slot: int) -> None:
    """One connection is cut: neither request is answered, and the next one is."""
    gates = [Gate(up.channel(0, each), after=40) for each in (0, 1)]
    first, second = Asking(up, LONGER), Asking(up, SHORT)
    assert all(gate.reached.wait(60) for gate in gates)
    hang_up(up.channel(1, slot)._stream._socket)  # type: ignore[attr-defined]
    for gate in gates:
        gate.open()
    for asking in (first, second):
        asking.end()
        assert isinstance(asking.error, ProtocolError)
    answered_again(up)


def answered_again(up: Engines) -> None:
    told = {why for reports in up.reports for why in reports.told}
    assert told and not any("127.0.0.1" in why or "/" in why for why in told), "clients may hear it"
    answers: list[bool] = []

    def asked() -> bool:
        asking = Asking(up, [SHORT, LONGER])
        asking.end()
        if asking.error is None:
            right(asking.found, [SHORT, LONGER])
            answers.append(True)
        return bool(answers)

    until(asked, 60)
    no_serial_twice(up.roles)


def test_no_two_runs_share_a_streams_name(up: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under one seed, every run has its own name, and so have its streams: with and without failures between."""
    used: list[tuple[bytes, str]] = []
    real = module.Source

    def source(seed: bytes, run: str, *args: Any) -> Any:
        used.append((seed, run))
        return real(seed, run, *args)

    monkeypatch.setattr(module, "Source", source)
    for after in (0, 25, 70):
        if after:
            for slot in (0, 1):
                Gate(up.channel(after % 2, slot), after, Desync("it broke off"))
        asking = [Asking(up, [SHORT, "Fine!", LONGER]) for _ in range(2)]
        for each in asking:
            each.end()
        assert any(each.error for each in asking) == bool(after)
        up.ready()
        until(lambda: not any(jobs.waiting() for jobs in up.jobs))
        answered_again(up)
    runs = [each for each in used if each[1] != "weights"]
    assert len(runs) >= 2 * (3 + 3) and len(set(runs)) == len(runs)


def test_a_new_link_of_party_1_replaces_the_old_one(up: Engines) -> None:
    """As after a crash of party 1: its connections are still open here. Nobody answers on the new link, so it ends."""
    settings = load_party(up.roles.settings("party1"))
    stray = connect_link(settings.link, client_context(settings.tls), 2, patience=5.0, deadline=20.0)
    stray.abort("only a test")
    answered_again(up)


def test_different_numbers_in_flight_are_a_desync(tmp_path: Path) -> None:
    engines = Engines(tmp_path, in_flight=1)
    path = engines.roles.settings("party1")
    path.write_text(path.read_text().replace("in_flight = 1", "in_flight = 2"))
    with engines:
        until(lambda: all("in_flight: " in each.reason for each in engines.reports), 60)
        assert "in_flight: 1 here, 2 at party1" in engines.reports[0].reason
