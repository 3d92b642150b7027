"""What goes wrong between real processes: killed roles, foreign certificates, garbage, slow clients, full disks, skew.

After each fault the others must still be up, the next question must be answered, and no serial may have served twice.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from roles_lab import (
    LONG,
    TEXT,
    Asking,
    ask,
    blank_keys,
    in_the_middle,
    logged,
    no_serial_twice,
    right,
    serials,
    until,
)

from secformer import __version__, connect, demo_model
from secformer.models.run.decoding import new_tokens
from secformer.models.run.provisioning import write_shares
from secformer.models.run.share_file import share_file
from secformer.mpc.errors import InputError, ProtocolError
from secformer.mpc.net.tls import Identity, client_context, host_name
from secformer.mpc.net.wire import HEADER_BYTES
from secformer.roles import certificates
from secformer.roles.certificates import REVOKED, init, issue
from secformer.roles.messages import Half, StepRequest, pack_half
from secformer.roles.settings import load_client
from secformer.roles.trial import LocalRoles

ROLES = ("dealer", "party0", "party1")


def all_well(up: LocalRoles, but: str = "") -> None:
    """All roles but one are up, and once all are, the next question is answered."""
    for role in ROLES:
        if role != but:
            assert up.processes[role].poll() is None, f"the {role} ended: {up.log(role).read_text()[-2000:]}"
    if but:
        up.processes.pop(but, None)
        up.start(but)
    up.wait_ready()
    end = time.monotonic() + 30
    while True:
        try:
            right(ask(up))
            break
        except ProtocolError:  # the link is being made anew
            assert time.monotonic() < end
            time.sleep(0.2)
    no_serial_twice(up)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_killed_in_the_middle_of_a_request(up: LocalRoles, role: str) -> None:
    asking = in_the_middle(up)
    up.stop(role, signal.SIGKILL)
    asking.end()
    if role != "dealer" or asking.error is not None:  # the dealer may have been done with this request
        assert isinstance(asking.error, ProtocolError), asking.error
        assert str(asking.error)
    assert asking.seconds < 60
    all_well(up, but=role)


def test_a_client_that_leaves_in_the_middle(up: LocalRoles) -> None:
    script = ("import sys\nfrom secformer import connect\n"
              f"connect({str(up.settings('client'))!r}).infer({LONG!r})\n")
    before = len(serials(up, "party0"))
    client = subprocess.Popen([sys.executable, "-c", script])
    until(lambda: len(serials(up, "party0")) > before, 60)
    client.kill()
    client.wait()
    all_well(up)


def test_the_dealer_away_is_waited_for_and_then_said(up: LocalRoles) -> None:
    up.stop("dealer")
    seconds = []

    def lacks_the_dealer() -> bool:
        started = time.monotonic()
        with pytest.raises(ProtocolError) as error:
            ask(up)
        seconds.append(time.monotonic() - started)
        return "dealer" in str(error.value)

    until(lacks_the_dealer, 60)  # at first, the link may be on its way
    assert seconds[-1] >= 2.0  # dealer_wait
    late = Asking(up, TEXT)
    up.start("dealer")
    late.end()
    assert late.error is None or "dealer" in str(late.error)
    all_well(up)


def test_a_dealer_that_lost_its_state_begins_a_new_epoch(up: LocalRoles) -> None:
    up.stop("dealer")
    shutil.rmtree(up.role_folder("dealer") / "state")
    up.start("dealer")
    until(lambda: _asks(up), 60)
    epochs = {line.split()[0] for line in serials(up, "party0")}
    assert len(epochs) >= 2
    all_well(up)


def _asks(up: LocalRoles) -> bool:
    try:
        right(ask(up))
    except ProtocolError:
        return False
    return True


# ---- who may speak ---------------------------------------------------------------------------------------------------


@contextmanager
def identity(up: LocalRoles, **changes: Path) -> Iterator[Path]:
    """A client's settings file with other TLS files."""
    text = up.settings("client").read_text()
    for key, path in changes.items():
        old = next(line for line in text.splitlines() if line.startswith(f"{key} ="))
        text = text.replace(old, f'{key} = "{path}"')
    path = up.role_folder("client") / "other.toml"
    path.write_text(text)
    yield path
    path.unlink()


def test_a_foreign_authority_is_refused(up: LocalRoles, tmp_path: Path) -> None:
    init(tmp_path / "foreign")
    there = tmp_path / "foreign" / "client"
    with (identity(up, certificate=there / "client.pem", key=there / "client.key") as settings,
          connect(settings) as model,
          pytest.raises(ProtocolError, match="certificate")):
        model.infer(TEXT)
    with (identity(up, authority=there / "authority.pem", revoked=there / REVOKED) as settings,
          connect(settings) as model,
          pytest.raises(ProtocolError, match="is not party")):  # and this client refuses the parties
        model.infer(TEXT)
    for problem in ("self|issuer", "unknown ca"):
        logged(up, "party0", lambda line, said=problem: line["event"] == "connection refused"
               and re.search(said, str(line["problem"])) is not None)
    all_well(up)


@pytest.mark.parametrize("days", [(-10, -2), (5, 10)], ids=["expired", "not yet valid"])
def test_a_certificate_out_of_its_time_is_refused(up: LocalRoles, days: tuple[int, int]) -> None:
    at = datetime.now(UTC) + timedelta(days=days[0])
    with mock.patch.object(certificates, "datetime", mock.Mock(now=lambda zone: at)):
        issued = issue(up.folder / "roles", "client", name="untimely", days=days[1] - days[0])
    with (identity(up, certificate=issued.certificate, key=issued.certificate.with_suffix(".key")) as settings,
          connect(settings) as model,
          pytest.raises(ProtocolError, match="certificate")):
        model.infer(TEXT)
    logged(up, "party0", lambda line: ("expired" if days[1] < 0 else "not yet valid") in str(line.get("problem")))
    shutil.rmtree(issued.certificate.parent)
    all_well(up)


@pytest.mark.parametrize("role", ["party0", "party1", "dealer"])
def test_a_role_is_no_client(up: LocalRoles, role: str) -> None:
    folder = up.role_folder(role)
    with (identity(up, certificate=folder / f"{role}.pem", key=folder / f"{role}.key") as settings,
          connect(settings) as model,
          pytest.raises(ProtocolError, match="requests and sessions are clients'")):
        model.infer(TEXT)
    all_well(up)


def connected(up: LocalRoles, role: str, port: str, expected: str) -> ssl.SSLSocket:
    """A TLS connection to a port, as some role."""
    folder = up.role_folder(role)
    own = Identity(folder / "authority.pem", folder / f"{role}.pem", folder / f"{role}.key")
    raw = socket.create_connection(("127.0.0.1", up.ports[port]), timeout=20)
    return client_context(own).wrap_socket(raw, server_hostname=host_name(expected))


def ends(connection: socket.socket) -> bool:
    """The other side hangs up."""
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize(("role", "port", "expected"), [
    ("client", "dealer", "dealer"), ("client", "link", "party0"), ("dealer", "link", "party0"),
    ("party0", "link", "party0"),
])
def test_the_wrong_role_is_hung_up_on(up: LocalRoles, role: str, port: str, expected: str) -> None:
    with connected(up, role, port, expected) as connection:
        assert ends(connection)
    logged(up, "dealer" if port == "dealer" else "party0",
           lambda line: "is not allowed to connect here" in str(line.get("problem")))
    all_well(up)


# ---- garbage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["dealer", "link", "party0", "party1", "metrics0"])
def test_garbage_without_tls(up: LocalRoles, port: str) -> None:
    for junk in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)):
        with socket.create_connection(("127.0.0.1", up.ports[port]), timeout=20) as connection:
            connection.sendall(junk)
            with suppress(OSError):  # it may have hung up already
                connection.shutdown(socket.SHUT_WR)
            assert ends(connection)
    all_well(up)


@pytest.mark.parametrize(("role", "port", "expected"), [("party1", "dealer", "dealer"), ("client", "party0", "party0")])
@pytest.mark.parametrize("junk", [b"\x00" * 200, b"SFR1" + b"\xff" * 60, b"SFR1\x02" + b"\0" * 39 + b"\xff" * 8,
                                  b"SFR1\x02\0\0\0" + b"\0" * 10])
def test_garbage_within_tls(up: LocalRoles, role: str, port: str, expected: str, junk: bytes) -> None:
    """Frames of a wrong type, frames that announce 2^64 bytes, half frames."""
    with connected(up, role, port, expected) as connection:
        connection.sendall(junk)
        if len(junk) >= HEADER_BYTES:  # half a frame is waited for until this side leaves
            assert ends(connection)
    all_well(up)


def posted(up: LocalRoles, body: bytes, headers: dict[str, str] | None = None, path: str = "/v1/infer") -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", timeout=20)
    connection.sock = connected(up, "client", "party0", "party0")
    connection.request("POST", path, body, headers or {})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def half(up: LocalRoles, **changes: object) -> bytes:
    public = up.public
    facts = {"request": os.urandom(16).hex(), "model": public.digest, "lengths": np.array([4]),
             "mask": np.ones((1, 4), bool)}
    if not changes.keys() & {"seed", "words"}:
        facts["keys"] = blank_keys(public.inputs, 4)
    return pack_half(Half(**facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("changes", "status"), [
    ({"request": "no id"}, 400), ({"lengths": np.array([0]), "mask": np.ones((1, 0), bool)}, 400),
    ({"lengths": np.array([9999]), "mask": np.ones((1, 9999), bool)}, 400), ({"seed": b"short"}, 400),
    ({"mask": np.zeros((1, 4), bool)}, 400), ({"mask": np.ones((1, 5), bool)}, 400),
    ({"words": np.zeros((4, 3), np.uint32)}, 400), ({"lengths": np.array([-1])}, 400),
    ({"lengths": np.full(600, 4), "mask": np.ones((600, 4), bool)}, 400), ({"model": "0" * 64}, 409),
])
def test_wrong_requests_are_refused(up: LocalRoles, changes: dict[str, object], status: int) -> None:
    assert posted(up, half(up, **changes)).status == status


def test_wrong_bodies_are_refused(up: LocalRoles) -> None:
    good = half(up)
    for body in (b"", b"{}", os.urandom(1000), good[:-1], good[:100], b"\xff" * 8 + good[8:],
                 (1 << 40).to_bytes(8, "little") + b"{}"):
        assert posted(up, body).status == 400
    assert posted(up, bytes((64 << 20) + 1)).status == 413
    assert posted(up, good, path="/v1/nothing").status == 404
    all_well(up)


def test_a_half_whose_other_half_never_comes_ends_with_its_client(up: LocalRoles) -> None:
    body = half(up)
    with connected(up, "client", "party0", "party0") as connection:
        head = f"POST /v1/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body)
        right(ask(up))  # others are not held up
    all_well(up)


def test_one_id_is_answered_once(up: LocalRoles) -> None:
    client = load_client(up.settings("client"))
    with connect(client) as model, mock.patch("secformer.roles.halves.fresh_seed", lambda: bytes(32)):
        right(model.infer(TEXT))
        with pytest.raises(ProtocolError, match="sent before"):
            model.infer(TEXT)
    all_well(up)


def test_sessions_over_https(up: LocalRoles) -> None:
    """This model generates no text: none is begun, and none goes on. Only clients may end one."""
    first, batch = os.urandom(16).hex(), new_tokens([7])
    with connect(up.settings("client")) as model:
        for request in (first, os.urandom(16).hex()):
            with pytest.raises(InputError, match=r"400: the model here \(BertForSequenceClassification\) generates no"):
                model._step(first, batch, lambda request=request: (request, StepRequest(first, 0, 1)))
        model._sessions.add(first)
        model._end(first)
    connection = HTTPConnection("127.0.0.1", timeout=20)
    connection.sock = connected(up, "dealer", "party0", "party0")
    connection.request("DELETE", f"/v1/sessions/{first}")
    assert connection.getresponse().status == 403
    connection.close()
    all_well(up)


def test_slow_clients_are_dropped(up: LocalRoles) -> None:
    """header_deadline is 2 s here: one that sends a byte now and then does not hold a connection for long."""
    with connected(up, "client", "party0", "party0") as connection:
        connection.settimeout(0.2)
        started = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"POST /v1/infer HTTP/1.1\r\nHost: " + b"x" * 1000:
                connection.sendall(bytes([byte]))
                try:
                    if connection.recv(1) == b"":
                        raise ConnectionError("hung up")
                except TimeoutError:
                    pass
        assert time.monotonic() - started >= 1.5
    logged(up, "party0", lambda line: line["event"] == "connection dropped")
    all_well(up)


# ---- disks, versions, settings ---------------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_is_whole(up: LocalRoles) -> None:
    """With room for two runs and a half, two are stored, it is said, and they serve."""
    from secformer.roles.settings import load_party
    from secformer.roles.stocking import stock

    tokens = int(ask(up, "Dull.").attention_mask.sum())
    each = stock(load_party(up.settings("party1")), [tokens], 1).run_bytes
    command = ["deal", "--settings", str(up.settings("party1")), "--count", "4", "--lengths", str(tokens)]

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(2.5 * each), int(2.5 * each)))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = subprocess.run([sys.executable, "-m", "secformer", *command], capture_output=True, text=True, check=False,
                          preexec_fn=little_room)
    assert done.returncode == 1 and "only 2 of 4" in done.stderr and "too large" in done.stderr.lower(), done.stderr
    for _ in range(4):  # three from the store, one live
        right(ask(up, "Dull."), "Dull.")
    all_well(up)


def test_another_model_at_the_other_party(up: LocalRoles, tmp_path: Path) -> None:
    other = write_shares(demo_model(), tmp_path / "other")
    mine = up.role_folder("party1") / "model.safetensors"
    kept = tmp_path / "kept.safetensors"
    shutil.copy(mine, kept)

    up.stop("party1")
    shutil.copy(tmp_path / "other" / share_file(1), mine)
    up.start("party1")
    try:
        until(lambda: "differ" in up.ready(0), 60)
        reason = up.ready(0)
    finally:
        up.stop("party1")
        shutil.copy(kept, mine)
    assert up.public.digest in reason and other.digest in reason
    all_well(up, but="party1")


def test_another_version_at_the_other_party(up: LocalRoles) -> None:
    def start() -> None:
        script = ("import secformer.version; secformer.version.__version__ = '0.0.9'\nfrom secformer.cli import main\n"
                  f"main(['party', '--settings', {str(up.settings('party1'))!r}])")
        with up.log("party1").open("ab") as log:
            up.processes["party1"] = subprocess.Popen([sys.executable, "-c", script], start_new_session=True,
                                                      stdout=log, stderr=log)

    up.stop("party1")
    start()
    until(lambda: "0.0.9" in up.ready(1), 60)  # the dealer refuses it and names both versions
    assert __version__ in up.ready(1)
    up.stop("party1")
    all_well(up, but="party1")


def test_a_typo_in_a_settings_file(up: LocalRoles, tmp_path: Path) -> None:
    for role, command in (("party0", ["party"]), ("dealer", ["dealer"]), ("client", ["query", TEXT])):
        path = up.role_folder(role) / "typo.toml"
        path.write_text(up.settings(role).read_text().replace("deadline", "deadlin").replace("# deadlin ", "deadlin "))
        done = subprocess.run([sys.executable, "-m", "secformer", *command, "--settings", str(path)],
                              capture_output=True, text=True, check=False)
        path.unlink()
        assert done.returncode == 1 and "did you mean 'deadline'" in done.stderr, done.stderr


def test_another_partys_share_file(up: LocalRoles) -> None:
    path = up.role_folder("party0") / "wrong.toml"
    path.write_text(up.settings("party0").read_text().replace("model.safetensors", "../party1/model.safetensors"))
    done = subprocess.run([sys.executable, "-m", "secformer", "party", "--settings", str(path)], capture_output=True,
                          text=True, check=False)
    path.unlink()
    assert done.returncode == 1 and "party 1's share file" in done.stderr


def test_a_client_of_another_provisioning(up: LocalRoles, tmp_path: Path) -> None:
    other = write_shares(demo_model(), tmp_path / "other")
    path = up.role_folder("client") / "other_model.toml"
    path.write_text(up.settings("client").read_text().replace('model = "model"', f'model = "{tmp_path}/other/client"'))
    with connect(path) as model, pytest.raises(ProtocolError) as caught:
        model.infer(TEXT)
    path.unlink()
    assert other.digest in str(caught.value) and up.public.digest in str(caught.value)


def test_a_taken_port(up: LocalRoles) -> None:
    """The state and the audit log are others: those of a running role are refused before."""
    for role in ("dealer", "party0"):
        path = up.role_folder(role) / "elsewhere.toml"
        path.write_text(re.sub(r"(?m)^state = .*$", 'state = "elsewhere"\naudit_folder = "elsewhere-audit"',
                               up.settings(role).read_text()))
        done = subprocess.run([sys.executable, "-m", "secformer", *(["dealer"] if role == "dealer" else ["party"]),
                               "--settings", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "cannot listen" in done.stderr


def test_nobody_there(up: LocalRoles) -> None:
    up.stop("party0")
    with connect(up.settings("client")) as model, pytest.raises(ProtocolError, match=r"party0 at .* does not answer"):
        model.infer(TEXT)
    with connect(up.settings("client")) as model, pytest.raises(InputError):
        model.infer([])
    all_well(up, but="party0")


def test_serving_without_the_extra_says_what_to_install(up: LocalRoles) -> None:
    script = ("import sys, importlib.util as u\nfind = u.find_spec\n"
              "u.find_spec = lambda name, *a: None if name == 'starlette' else find(name, *a)\n"
              "from secformer.cli import main\n"
              f"sys.exit(main(['party', '--settings', {str(up.settings('party0'))!r}]))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "secformer[serve]" in done.stderr
