"""A door with real sockets: silence, junk, slowness, floods, and a system without descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from secformer.mpc.errors import AuthError
from secformer.mpc.net import door as door_module
from secformer.mpc.net.door import (
    GAVE_WAY,
    JUNK,
    LEFT,
    NO_DESCRIPTOR,
    TOO_SLOW,
    UNPROVED,
    Door,
    Refused,
    opens_http,
    opens_tls,
)
from secformer.mpc.net.places import Places

HELLO = b"\x16\x03\x01\x00\x01h"  # the shortest record


class Entrance:
    """A door, those whom it met, and those whom it refused."""

    def __init__(self, most: int, patience: float, meet: Callable[[socket.socket], Awaitable[None]] | None):
        self.met, self.refused, self.meet = list[socket.socket](), list[Refused](), meet
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.places = Places(most)
        self.door = Door(self.listener, self.places, opens_tls, self._meet, self.refused.append, patience)

    async def _meet(self, connection: socket.socket, where: str) -> None:
        if self.meet is not None:
            await self.meet(connection)
        self.met.append(connection)

    async def knock(self, data: bytes = b"") -> socket.socket:
        knocker = socket.socket()
        knocker.setblocking(False)
        await asyncio.get_running_loop().sock_connect(knocker, self.listener.getsockname())
        if data:
            await asyncio.get_running_loop().sock_sendall(knocker, data)
        return knocker

    async def until(self, holds: Callable[[], Any], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.005)


async def is_cut(knocker: socket.socket) -> bool:
    """Whether the door has hung up, within a while."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(knocker, 1), 20) == b""
    except ConnectionError:
        return True


def at_a_door(story: Callable[[Entrance], Awaitable[None]], most: int = 4, patience: float = 20.0,
              meet: Callable[[socket.socket], Awaitable[None]] | None = None) -> Entrance:
    async def told() -> Entrance:
        entrance = Entrance(most, patience, meet)
        try:
            await story(entrance)
        finally:
            entrance.door.close()
            await asyncio.sleep(0)
            entrance.listener.close()
            for connection in entrance.met:
                connection.close()
        return entrance

    return asyncio.run(told())


def whys(entrance: Entrance) -> list[str]:
    return [each.why for each in entrance.refused]


def test_who_proves_is_no_stranger_any_more() -> None:
    async def story(entrance: Entrance) -> None:
        knocker = await entrance.knock(HELLO)
        await entrance.until(lambda: entrance.met)
        assert entrance.met[0].recv(99) == HELLO, "the door has taken nothing of what was said"
        await entrance.until(lambda: not len(entrance.places))
        assert entrance.places.knows("127.0.0.1")
        knocker.close()

    assert not at_a_door(story).refused


def test_silence_ends_and_costs_the_others_nothing() -> None:
    async def story(entrance: Entrance) -> None:
        silent = [await entrance.knock() for _ in range(3)]
        speaker = await entrance.knock(HELLO)
        await entrance.until(lambda: entrance.met)
        for each in silent:
            assert await is_cut(each)
            each.close()
        speaker.close()

    entrance = at_a_door(story, patience=0.3)
    assert whys(entrance) == [TOO_SLOW] * 3 and "within 0.3 s" in entrance.refused[0].problem


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00", b"\x15\x03\x03", b"\x16\x02", bytes(5000)])
def test_junk_is_refused_at_its_first_bytes(data: bytes) -> None:
    async def story(entrance: Entrance) -> None:
        knocker = await entrance.knock(data)
        assert await is_cut(knocker)
        knocker.close()

    entrance = at_a_door(story)
    assert whys(entrance) == [JUNK] and not entrance.met


def test_who_leaves_without_a_word_frees_its_place() -> None:
    async def story(entrance: Entrance) -> None:
        (await entrance.knock()).close()
        await entrance.until(lambda: entrance.refused)
        assert not len(entrance.places)

    assert whys(at_a_door(story)) == [LEFT]


def test_a_crowd_of_the_silent_gives_way_and_a_newcomer_gets_in() -> None:
    async def story(entrance: Entrance) -> None:
        silent = [await entrance.knock() for _ in range(30)]
        speaker = await entrance.knock(HELLO)
        await entrance.until(lambda: entrance.met)
        assert len(entrance.places) <= 4
        for each in silent[:20]:
            assert await is_cut(each)
        for each in (*silent, speaker):
            each.close()

    assert GAVE_WAY in whys(at_a_door(story))


def test_the_deadline_counts_from_the_acceptance_however_it_drips() -> None:
    """`meet` may wait for each byte as long as it likes: the door's patience is for all."""
    async def meet(connection: socket.socket) -> None:
        while True:
            await asyncio.get_running_loop().sock_recv(connection, 1)

    async def story(entrance: Entrance) -> None:
        knocker, started = await entrance.knock(HELLO), time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - started < 20:
                await asyncio.sleep(0.02)
                knocker.send(b"x")
        knocker.close()

    entrance = at_a_door(story, patience=0.4, meet=meet)
    assert whys(entrance) == [TOO_SLOW] and not entrance.met


def test_who_gives_way_in_the_middle_of_proving_is_cut() -> None:
    async def meet(connection: socket.socket) -> None:
        await asyncio.Event().wait()

    async def story(entrance: Entrance) -> None:
        knockers = [await entrance.knock(HELLO) for _ in range(3)]
        assert await is_cut(knockers[0])
        for each in knockers:
            each.close()

    assert GAVE_WAY in whys(at_a_door(story, most=2, meet=meet))


@pytest.mark.parametrize(("error", "why"), [(AuthError("no role"), UNPROVED), (ConnectionError("gone"), LEFT)])
def test_a_failed_proof_is_told_once_and_read_by_the_peer(error: Exception, why: str) -> None:
    async def meet(connection: socket.socket) -> None:
        connection.recv(99)
        connection.send(b"no")
        raise error

    async def story(entrance: Entrance) -> None:
        knocker = await entrance.knock(HELLO)
        assert await asyncio.get_running_loop().sock_recv(knocker, 9) == b"no"
        assert await is_cut(knocker)
        knocker.close()

    entrance = at_a_door(story, meet=meet)
    assert whys(entrance) == [why] and str(error) in entrance.refused[0].problem
    assert not entrance.places.knows("127.0.0.1")


def test_a_defect_in_meeting_somebody_ends_that_one_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def meet(connection: socket.socket) -> None:
        if connection.recv(99) == HELLO:
            raise ZeroDivisionError

    async def story(entrance: Entrance) -> None:
        first = await entrance.knock(HELLO)
        assert await is_cut(first)
        second = await entrance.knock(HELLO + b"!")
        await entrance.until(lambda: entrance.met)
        for each in (first, second):
            each.close()

    at_a_door(story, meet=meet)
    assert [record.getMessage() for record in caplog.records] == ["unexpected"]


def test_little_is_done_for_strangers_in_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "TICK", 0.1)
    monkeypatch.setattr(door_module, "ACCEPTED", 5)
    monkeypatch.setattr(door_module, "BEGUN", 2)

    async def story(entrance: Entrance) -> None:
        began = time.monotonic()
        knockers = [await entrance.knock(HELLO) for _ in range(12)]
        await entrance.until(lambda: len(entrance.met) == 12)
        assert time.monotonic() - began >= 4 * 0.1, "two of twelve in each tick"
        for each in knockers:
            each.close()

    at_a_door(story, most=50)


def test_who_came_last_or_is_known_is_met_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "TICK", 0.1)
    monkeypatch.setattr(door_module, "BEGUN", 1)
    order: list[bytes] = []

    async def meet(connection: socket.socket) -> None:
        order.append(connection.recv(99)[-1:])

    async def story(entrance: Entrance) -> None:
        knockers = [await entrance.knock(HELLO + bytes([65 + i])) for i in range(4)]
        await entrance.until(lambda: len(order) == 4)
        for each in knockers:
            each.close()

    at_a_door(story, most=50, meet=meet)
    assert order[1:] == sorted(order[1:], reverse=True)


def test_a_system_without_descriptors_is_told_once_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listening socket stays ready, but the door looks away for a while; strangers give back theirs."""
    monkeypatch.setattr(door_module, "EXHAUSTED_PAUSE", 0.2)

    class Exhausted:
        def __init__(self, real: socket.socket):
            self.real, self.tries, self.fails = real, 0, False

        def accept(self) -> Any:
            self.tries += 1
            if self.fails:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.real.accept()

        def fileno(self) -> int:
            return self.real.fileno()

    async def story(entrance: Entrance) -> None:
        silent = await entrance.knock()
        await entrance.until(lambda: len(entrance.places))
        entrance.door._socket = exhausted = Exhausted(entrance.listener)  # type: ignore[assignment]
        exhausted.fails = True
        speaker = await entrance.knock(HELLO)
        assert await is_cut(silent)
        await asyncio.sleep(0.5)
        assert 1 <= exhausted.tries <= 4, "not once for each turn of the loop"
        exhausted.fails = False
        await entrance.until(lambda: entrance.met)
        for each in (silent, speaker):
            each.close()

    entrance = at_a_door(story)
    assert whys(entrance)[:2] == [NO_DESCRIPTOR, GAVE_WAY] and "limit of open files" in entrance.refused[0].problem


def test_a_closed_door_hangs_up_on_all() -> None:
    async def story(entrance: Entrance) -> None:
        silent = await entrance.knock()
        await entrance.until(lambda: len(entrance.places))
        entrance.door.close()
        await entrance.door.wait_closed()
        assert await is_cut(silent) and not len(entrance.places)
        silent.close()

    assert not at_a_door(story).refused


def test_first_bytes() -> None:
    assert [opens_tls(data) for data in (b"\x16", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00", HELLO)] == [5, 5, 517, 6]
    assert [opens_tls(data) for data in (b"\x16\x04", b"G", b"\x16\x03\x01\xff\xff", b"")] == [0] * 4
    assert [opens_http(data) for data in (b"GET /", b"P", b"get", b"\x16\x03", b"\xc3\x84", b"")] == [1, 1, 0, 0, 0, 0]


def test_who_drips_is_not_met_before_it_has_said_enough() -> None:
    async def story(entrance: Entrance) -> None:
        knocker = await entrance.knock()
        for byte in HELLO[:-1]:
            await asyncio.get_running_loop().sock_sendall(knocker, bytes([byte]))
            await asyncio.sleep(0.03)
        assert not entrance.met
        await asyncio.get_running_loop().sock_sendall(knocker, HELLO[-1:])
        await entrance.until(lambda: entrance.met)
        knocker.close()

    assert not at_a_door(story).refused


@pytest.mark.parametrize("said", [HELLO[:1], HELLO[:5]])
def test_who_leaves_before_it_has_said_enough(said: bytes) -> None:
    async def story(entrance: Entrance) -> None:
        (await entrance.knock(said)).close()
        await entrance.until(lambda: entrance.refused)
        assert not len(entrance.places)

    assert whys(at_a_door(story)) == [LEFT]
