"""Floods against every port of served roles: what known clients notice, what the logs take, how soon it is over.

    python bench/doors.py                       all ports, all kinds, 10,000 sockets: about five minutes
    python bench/doors.py --ports dealer --kinds idle --sockets 500 --seconds 3

Real processes serve the shipped model on this machine. Each role may have 1,024 descriptors. An attacking process keeps
as many sockets as asked for, and opens each again one second after it was hung up on:

- idle      says nothing
- half      sends a whole ClientHello and then nothing
- slow      sends a ClientHello, one byte per second
- garbage   sends 1,000 random bytes

A known client asks all the time, each time on new connections. As a control, the same attacker connects to a process
that only accepts: this shows what the attacker itself takes from the machine. Writes bench/results/doors.json.
"""

from __future__ import annotations

import argparse
import os
import resource
import selectors
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from report import record

from secformer import connect, demo_model
from secformer.mpc.errors import SecformerError
from secformer.mpc.net.tcp import free_ports
from secformer.roles.trial import ROLES, LocalRoles

KINDS = ("idle", "half", "slow", "garbage")
PORTS = {"clients": "party0", "browsers": "browsers0", "link": "link", "dealer": "dealer", "metrics": "metrics0"}
TEXT = "A wonderful film."
LIMIT = 1024     # descriptors of each role
AGAIN = 1.0      # seconds after which a socket that was hung up on is opened again
OVER = 30.0      # seconds in which a request must be as fast as before


class LimitedRoles(LocalRoles):
    """Roles with the usual limit of descriptors, which they cannot raise."""

    def start(self, role: str) -> None:
        super().start(role)
        resource.prlimit(self.processes[role].pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))


# ---- the attacker ----------------------------------------------------------------------------------------------------


def hello() -> bytes:
    """A ClientHello as a client of a party sends it."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="party0.secformer")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def attack(port: int, kind: str, count: int) -> None:
    """Until it is killed. Prints how many sockets it has opened, once a second."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 100)), hard))
    said, selector = hello(), selectors.DefaultSelector()
    waiting = [(0.0, number) for number in range(count)]  # when each is opened (again)
    dripping: dict[socket.socket, int] = {}
    opened, second = 0, time.monotonic()
    while True:
        now = time.monotonic()
        batch, waiting = waiting[:200], waiting[200:]
        for at, number in batch:
            if at > now:
                waiting.append((at, number))
                continue
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            selector.register(sock, selectors.EVENT_WRITE, number)
            opened += 1
        for key, _ in selector.select(0.02):
            sock: Any = key.fileobj
            try:
                if key.events & selectors.EVENT_WRITE:
                    if kind in ("half", "garbage"):
                        sock.send(said if kind == "half" else os.urandom(1000))
                    elif kind == "slow":
                        dripping[sock] = 0
                    selector.modify(sock, selectors.EVENT_READ, key.data)
                elif not sock.recv(1 << 14):
                    raise ConnectionError
            except OSError:
                selector.unregister(sock)
                dripping.pop(sock, None)
                sock.close()
                waiting.append((time.monotonic() + AGAIN, key.data))
        if now - second >= 1.0:
            second = now
            print(opened, flush=True)
            for sock, place in list(dripping.items()):
                with suppress(OSError):
                    sock.send(said[place:place + 1])
                dripping[sock] = place + 1


def sink(port: int) -> None:
    """Accepts and keeps, as cheaply as can be: the control."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with socket.create_server(("127.0.0.1", port), backlog=256) as server:
        kept = []
        while True:
            kept.append(server.accept()[0])


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, __file__, *map(str, command)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


# ---- the client that is known ----------------------------------------------------------------------------------------


class Client:
    """Asks, each time on new connections; keeps how long it took, and what failed."""

    def __init__(self, roles: LocalRoles):
        self._model = connect(roles.settings("client"))
        self.failures: list[str] = []

    def ask(self) -> float:
        for way in self._model._ways:
            for party in way.parties:
                party.close()
        started = time.perf_counter()
        try:
            self._model.infer(TEXT)
        except SecformerError as error:
            self.failures.append(str(error))
        return time.perf_counter() - started

    def ask_for(self, seconds: float) -> list[float]:
        end, took = time.monotonic() + seconds, [self.ask()]
        while time.monotonic() < end:
            took.append(self.ask())
        return took

    def close(self) -> None:
        self._model.close()


def attacked(roles: LocalRoles, client: Client, port: int, kind: str, count: int, seconds: float) -> dict[str, Any]:
    size = sum(roles.log(role).stat().st_size for role in ROLES)
    before = client.ask_for(seconds / 3)
    failed = len(client.failures)
    with running("--attack", port, "--kinds", kind, "--sockets", count) as attacker:
        time.sleep(1.0)  # it has begun
        during = client.ask_for(seconds)
    opened = (attacker.stdout.read().split() or ["0"])[-1] if attacker.stdout else "0"
    over, fast = time.monotonic(), 1.5 * statistics.median(before)
    while client.ask() > fast and time.monotonic() < over + OVER:
        pass
    recovered = time.monotonic() - over
    dealt = {role: len(os.listdir(f"/proc/{process.pid}/fd")) for role, process in roles.processes.items()}
    return {"before_seconds": statistics.median(before), "during_seconds": statistics.median(during),
            "longest_seconds": max(during), "requests_during": len(during), "ratio": statistics.median(during)
            / statistics.median(before), "failures": len(client.failures) - failed, "sockets_opened": int(opened),
            "log_bytes": sum(roles.log(role).stat().st_size for role in ROLES) - size,
            "recovered_seconds": recovered, "descriptors_after": max(dealt.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", nargs="+", choices=PORTS, default=list(PORTS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each attack")
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sink", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", default="doors")
    args = parser.parse_args()
    if args.attack is not None:
        attack(args.attack, args.kinds[0], args.sockets)
    if args.sink is not None:
        sink(args.sink)
    found: dict[str, Any] = {"descriptors": LIMIT, "sockets": args.sockets,
                             "seconds": args.seconds, "attacks": {}}
    with tempfile.TemporaryDirectory() as folder, LimitedRoles(
            Path(folder) / "roles", demo_model(), origins=["https://page.example"]) as roles:
        roles.wait_ready()
        client = Client(roles)
        client.ask_for(3.0)
        (control,) = free_ports(1)
        with running("--sink", control):
            time.sleep(2.0)
            ports = {"control": control} | {port: roles.ports[PORTS[port]] for port in args.ports}
            for name, port in ports.items():
                for kind in args.kinds:
                    row = attacked(roles, client, port, kind, args.sockets, args.seconds)
                    found["attacks"].setdefault(name, {})[kind] = row
                    print(f"{name:8} {kind:8} {row}", flush=True)
        found["failed"] = client.failures
        client.close()
    record(args.out, found)


if __name__ == "__main__":
    main()
