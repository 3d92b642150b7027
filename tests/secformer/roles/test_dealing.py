"""Connections of a party to the dealer that are kept, in one process over TLS: when they serve again, and when not."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from links_lab import MODEL, PLAN, WEIGHTS
from roles_lab import until

from secformer.mpc.dealer.names import LIVE, fresh_nonce
from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import AuthError, Desync, PeerLost, ProtocolError
from secformer.mpc.net import credentials as credentials_module
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tcp import free_ports
from secformer.mpc.net.tls import hang_up
from secformer.roles import dealer_server, dealing, idling
from secformer.roles.certificates import REVOKED, init, issue, revoke
from secformer.roles.dealer_server import DealerServer
from secformer.roles.dealing import PLANS, DealerClient, PlansTold
from secformer.roles.epochs import Epoch
from secformer.roles.monitoring import DealerMetrics
from secformer.roles.settings import DealerSettings, load_dealer

PATIENCE = 10.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init(folder := tmp_path_factory.mktemp("dealing") / "roles")
    return folder


@pytest.fixture
def roles(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy whose files may be changed; they are looked at each time, and idle connections soon."""
    monkeypatch.setattr(credentials_module, "EVERY", 0.0)
    monkeypatch.setattr(idling, "LOOK", 0.02)
    return Path(shutil.copytree(made, tmp_path / "roles"))


class Dealt:
    """A dealer at one address, however often it is started again, with its metrics; and party 1's access to it."""

    def __init__(self, roles: Path, tmp_path: Path):
        settings = load_dealer(roles / "dealer" / "dealer.toml")
        self.settings: DealerSettings = replace(settings, listen=("127.0.0.1", free_ports(1)[0]), backend="numpy",
                                                state=tmp_path / "state", metrics=None)
        self.roles, self.metrics, self.used = roles, DealerMetrics(lambda: True), list[int]()
        self._before = set(threading.enumerate())
        self.server = self._started()
        self.client = self.party(most=2)
        self.epoch: Epoch = self.client.join(patience=PATIENCE)

    def _started(self) -> DealerServer:
        return DealerServer(self.settings, reports=self.metrics)

    def party(self, **settings: Any) -> DealerClient:
        tls = replace(self.settings.tls, **{key: self.roles / "party1" / f"party1.{end}"
                                            for key, end in (("certificate", "pem"), ("key", "key"))},
                      revoked=self.roles / "party1" / REVOKED)
        return DealerClient(self.settings.listen, Credentials(tls).client(), MODEL, WEIGHTS, deadline=10.0, **settings)

    def restart(self) -> None:
        self.server.close()
        self.server = self._started()

    def begin(self, plan: Plan = PLAN, patience: float = PATIENCE) -> Channel:
        """The corrections of a run, whose serial no run had before."""
        serial, channel = self.client.deal(self.epoch, LIVE, -1, plan, nonces=(fresh_nonce(), fresh_nonce()),
                                           patience=patience)
        assert serial not in self.used, "a serial came twice"
        self.used.append(serial)
        return channel

    def deal(self, plan: Plan = PLAN, patience: float = PATIENCE) -> None:
        with closing(self.begin(plan, patience)) as channel:
            take(channel, plan)

    @property
    def made(self) -> int:
        """How many connections the dealer has let in."""
        return int(self.figure("connections_made_total"))

    @property
    def threads(self) -> list[str]:
        """Those that talk to the dealer or for it."""
        return [thread.name for thread in set(threading.enumerate()) - self._before
                if thread.name.startswith(("from 127.", "to dealer"))]

    def figure(self, name: str) -> float:
        (line,) = (line for line in self.metrics.text().decode().splitlines() if line.startswith(f"secformer_{name} "))
        return float(line.split()[1])

    def close(self) -> None:
        self.client.close()
        self.server.close()


def take(channel: Channel, plan: Plan = PLAN) -> None:
    for tag, nbytes in plan.corrections():
        assert channel.receive(tag, nbytes).size == nbytes


@pytest.fixture
def dealt(roles: Path, tmp_path: Path) -> Iterator[Dealt]:
    dealt = Dealt(roles, tmp_path)
    yield dealt
    dealt.close()
    until(lambda: not dealt.threads)


def test_one_connection_serves_ask_after_ask(dealt: Dealt) -> None:
    for _ in range(4):
        dealt.deal()
    assert dealt.client.join(patience=PATIENCE).name == dealt.epoch.name
    assert dealt.used == [0, 1, 2, 3] and dealt.made == 1
    until(lambda: (dealt.figure("joins_total"), dealt.figure("connections")) == (2, 0))


def test_asks_at_the_same_time_have_connections_of_their_own(dealt: Dealt) -> None:
    first, second, third = dealt.begin(), dealt.begin(), dealt.begin()
    for channel in (first, second, third):
        take(channel)
        channel.close()
        channel.close()
    assert dealt.made == 3
    until(lambda: len(dealt.server._idle._waiting) == 2)  # the third is not kept
    dealt.begin().close()
    assert dealt.made == 3


def test_a_plan_is_sent_once_on_each_connection(dealt: Dealt, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    spelt = Plan.as_dict
    monkeypatch.setattr(Plan, "as_dict", lambda plan: (sent.append(plan.digest), spelt(plan))[1])
    other = replace(PLAN, rounds=2)
    for plan in (PLAN, other, PLAN, other):
        dealt.deal(plan)
    assert sent == [PLAN.digest, other.digest]
    dealt.restart()
    dealt.deal()
    assert sent == [PLAN.digest, other.digest, PLAN.digest] and dealt.used == [0, 1, 2, 3, 4]


def test_both_ends_forget_the_same_plans() -> None:
    near, far = PlansTold(), PlansTold()
    plans = [replace(PLAN, rounds=rounds) for rounds in range(PLANS + 1)]
    for plan in (*plans, *plans[5:], plans[0], plans[0], plans[1]):
        told = near.told(plan)
        assert far.read(told) == plan
    assert isinstance(near.told(plans[0]), str) and not isinstance(near.told(plans[2]), str)
    with pytest.raises(Desync, match="must be sent whole once on each connection, but 'ffff' was not"):
        far.read("ffff")


def test_a_plan_that_was_not_sent_is_refused(dealt: Dealt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "as_dict", lambda plan: plan.digest)
    with pytest.raises(Desync, match="must be sent whole once on each connection"):
        dealt.begin()
    monkeypatch.undo()
    dealt.deal()
    assert dealt.used == [0], "what was refused used no serial"


def test_a_dealer_that_was_started_again_gets_the_next_ask(dealt: Dealt) -> None:
    dealt.deal()
    dealt.restart()
    dealt.deal()
    assert dealt.used == [0, 1] and dealt.made == 2


def test_a_dealer_that_is_down_is_waited_for_once(dealt: Dealt) -> None:
    dealt.deal()
    dealt.server.close()
    with pytest.raises(PeerLost, match=r"dealer at .* does not answer"):
        dealt.deal(patience=0.3)
    dealt.server = dealt._started()
    dealt.deal()
    assert dealt.used == [0, 1]


@pytest.mark.parametrize("when", ["before it is heard", "after it has burnt a serial"])
def test_a_kept_connection_that_is_lost_under_an_ask_is_replaced(dealt: Dealt, monkeypatch: pytest.MonkeyPatch,
                                                                 when: str) -> None:
    """The first answer never came, so nothing of it was used; the second has another serial."""
    dealt.deal()
    lost: list[Any] = []
    name = "_answer" if when == "before it is heard" else "_kept"
    then = getattr(dealer_server.DealerServer, name)

    def cut(server: DealerServer, *args: Any) -> Any:
        if lost:
            return then(server, *args)
        if name == "_kept":
            monkeypatch.setattr(dealer_server.TLSChannel, "tell", lose)
            return then(server, *args)
        lost.append(args[0])
        hang_up(args[0]._secured._socket)
        raise PeerLost("cut")

    tell = dealer_server.TLSChannel.tell

    def lose(channel: Any, note: Any) -> None:
        if "serial" in note and not lost:
            lost.append(channel)
            hang_up(channel._secured._socket)
        tell(channel, note)

    monkeypatch.setattr(dealer_server.DealerServer, name, cut)
    dealt.deal()
    assert len(lost) == 1 and dealt.made == 2
    assert dealt.used == ([0, 1] if name == "_answer" else [0, 2]), "the burnt serial is passed over"


def test_a_new_connection_that_is_lost_under_an_ask_is_not_tried_again(dealt: Dealt,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    dealt.client.close()
    dealt.client = dealt.party()
    asked: list[Any] = []

    def cut(server: DealerServer, channel: Any, *args: Any) -> None:
        asked.append(channel)
        hang_up(channel._secured._socket)

    monkeypatch.setattr(dealer_server.DealerServer, "_answer", cut)
    with pytest.raises(PeerLost):
        dealt.deal()
    assert len(asked) == 1


def test_corrections_that_break_off_fail_and_are_not_asked_for_again(dealt: Dealt) -> None:
    """The run has its serial by then. Its connection is of no use any more; the next run has another of both."""
    channel: Any = dealt.begin()
    hang_up(channel._channel._secured._socket)
    with pytest.raises(PeerLost):
        take(channel)
        channel._channel.hear()
    channel._left = 1  # as for a run with more corrections
    channel.close()
    dealt.deal()
    assert dealt.used == [0, 1] and dealt.made == 2


def test_what_was_not_read_is_not_left_for_the_next_run(dealt: Dealt) -> None:
    dealt.begin().close()
    dealt.deal()
    assert dealt.made == 2 and dealt.used == [0, 1]


def test_a_run_gets_its_own_corrections_and_no_more(dealt: Dealt) -> None:
    (tag, nbytes), = PLAN.corrections()
    with closing(dealt.begin()) as channel:
        take(channel)
        with pytest.raises(ProtocolError, match=r"have ended, but step 0: product0 .* is asked for"):
            channel.receive(tag, nbytes)
        with pytest.raises(ProtocolError, match="only read"):
            channel.send(tag, b"")
    with pytest.raises(ProtocolError, match="have ended"):
        channel.receive(tag, nbytes)
    aborted = dealt.begin()
    take(aborted)
    aborted.abort("the run has failed")
    aborted.close()
    dealt.deal()
    assert dealt.made == 2, "an aborted connection is not kept"


# ---- certificates ----------------------------------------------------------------------------------------------------


def copied(roles: Path) -> None:
    """The newest list of revoked certificates, at all roles."""
    for role in ("dealer", "party0", "party1"):
        shutil.copy(roles / "authority" / REVOKED, roles / role / REVOKED)


def test_a_new_certificate_is_shown_with_the_next_ask(dealt: Dealt) -> None:
    dealt.deal()
    issue(dealt.roles, "party1")
    dealt.deal()
    dealt.deal()
    assert dealt.made == 2


def test_a_party_whose_certificate_was_revoked_is_refused(dealt: Dealt) -> None:
    dealt.deal()
    revoke(dealt.roles, "party1")
    copied(dealt.roles)
    until(lambda: not dealt.server._idle._waiting)  # the dealer has ended what it kept
    with pytest.raises(Desync, match=r"the certificate of party1 .* was revoked"):
        dealt.deal()
    assert dealt.used == [0]


def test_a_dealer_whose_certificate_was_revoked_is_asked_nothing(dealt: Dealt) -> None:
    dealt.deal()
    revoke(dealt.roles, "dealer")
    shutil.copy(dealt.roles / "authority" / REVOKED, dealt.roles / "party1" / REVOKED)
    with pytest.raises(AuthError, match=r"the certificate of dealer .* was revoked"):
        dealt.deal()
    assert dealt.used == [0]


# ---- idle connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["idle", "certificate", "gone"])
def test_a_party_that_rests_hangs_up_where_it_has_a_reason(dealt: Dealt, monkeypatch: pytest.MonkeyPatch,
                                                           why: str) -> None:
    dealt.deal()
    dealt.client.rest()
    assert len(dealt.client._kept) == 1
    if why == "idle":
        monkeypatch.setattr(dealing, "IDLE", 0.0)
    elif why == "certificate":
        issue(dealt.roles, "party1")
    else:
        dealt.server.close()
        until(lambda: not dealt.server._idle._waiting)
        until(lambda: dealt.client._kept[0].channel.comes(0.0))
    dealt.client.rest()
    assert not dealt.client._kept
    until(lambda: not dealt.server._idle._waiting)


def shortened(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Callable[[Path, Path], Dealt]:
    for name, value in changes.items():
        monkeypatch.setattr(dealer_server, name, value)
    return Dealt


def test_the_dealer_hangs_up_after_a_while(roles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(shortened(monkeypatch, PATIENT=0.05)(roles, tmp_path)) as dealt:
        until(lambda: dealt.client._kept[0].channel.comes(0.0))
        dealt.deal()
        assert dealt.made == 2


def test_connections_that_wait_give_way_to_newer_ones(roles: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """So a party whose machine has vanished, and with it many kept connections, finds room when it comes back."""
    with closing(shortened(monkeypatch, RESTING=2)(roles, tmp_path)) as dealt:
        others = [dealt.party() for _ in range(3)]
        for other in others:
            other.join(patience=PATIENCE)
        until(lambda: dealt.client._kept[0].channel.comes(0.0) and others[0]._kept[0].channel.comes(0.0))
        assert all(other._kept[0].channel.lasts() for other in others[1:])
        dealt.deal()
        for other in others:
            other.close()


def test_a_closed_party_keeps_nothing(dealt: Dealt) -> None:
    channel = dealt.begin()
    take(channel)
    dealt.client.close()
    dealt.client.close()
    channel.close()
    assert not dealt.client._kept
    until(lambda: not dealt.threads)
