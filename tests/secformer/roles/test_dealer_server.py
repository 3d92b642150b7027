"""The dealer's server and the parties' way to it, in one process over TLS: who gets what, and what is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from links_lab import MODEL, PLAN, WEIGHTS, identity
from roles_lab import until

from secformer import __version__
from secformer.mpc.dealer.names import LIVE, NO_NONCE, STORED, fresh_nonce, run_name
from secformer.mpc.errors import Desync, PeerLost, ReusedRandomness, StoreError
from secformer.mpc.net.tls import client_context
from secformer.mpc.programs import everything
from secformer.mpc.segments import Launches
from secformer.roles import dealer_server
from secformer.roles.asks import MOST_RUNS
from secformer.roles.dealer_server import DealerServer
from secformer.roles.dealing import DealerClient
from secformer.roles.epochs import Epoch, State, epoch_of
from secformer.roles.precedence import Precedence
from secformer.roles.rotation import DAY, ORDER
from secformer.roles.settings import DealerSettings

PATIENCE = 5.0


def serve(roles: Path, state: Path, **settings: Any) -> DealerServer:
    return DealerServer(DealerSettings(("127.0.0.1", 0), state, identity(roles, "dealer"), deadline=10.0,
                                       backend="numpy", **settings))


@pytest.fixture
def dealer(roles: Path, tmp_path: Path) -> Iterator[DealerServer]:
    server = serve(roles, tmp_path / "state")
    yield server
    server.close()


def party(roles: Path, dealer: DealerServer, rank: int = 1, model: str = MODEL, weights: Any = WEIGHTS) -> DealerClient:
    return DealerClient(("127.0.0.1", dealer.port), client_context(identity(roles, f"party{rank}")), model, weights,
                        deadline=10.0)


def test_each_party_gets_its_own_seed_of_one_epoch(roles: Path, dealer: DealerServer, tmp_path: Path) -> None:
    first, second = (party(roles, dealer, rank).join(patience=PATIENCE) for rank in (0, 1))
    assert first.name == second.name and set(first.seeds) == {0} and set(second.seeds) == {1}
    assert party(roles, dealer, model="cd" * 32).join(patience=PATIENCE).name != first.name
    dealer.close()
    again = serve(roles, tmp_path / "state")
    try:
        assert party(roles, again, 0).join(patience=PATIENCE) == first, "an epoch outlives the dealer's process"
    finally:
        again.close()


def dealt(client: DealerClient, epoch: Epoch, **changes: Any) -> int:
    """The first serial; everything that the plan promises has come."""
    asked = {"space": LIVE, "after": -1, "plan": PLAN, "count": 1} | changes
    asked.setdefault("nonces", (NO_NONCE if asked["space"] == STORED else fresh_nonce(), fresh_nonce()))
    space, after, plan = asked.pop("space"), asked.pop("after"), asked.pop("plan")
    serial, channel = client.deal(epoch, space, after, plan, patience=PATIENCE, **asked)
    try:
        for _ in range(asked["count"]):
            for tag, nbytes in plan.corrections():
                assert channel.receive(tag, nbytes).size == nbytes
    finally:
        channel.close()
    return serial


def opened(client: DealerClient, epoch: Epoch, serial: int) -> str:
    """The name of the caches that the run of that serial opens."""
    nonces = fresh_nonce(), fresh_nonce()
    assert dealt(client, epoch, cache="", nonces=nonces, after=serial - 1) == serial
    return run_name(epoch.name, LIVE, serial, nonces, PLAN.digest)


@pytest.mark.parametrize("cache", ["live/0", "00" * 32, "weights"])
def test_caches_have_the_name_of_a_run_that_opened_some(roles: Path, dealer: DealerServer, cache: Any) -> None:
    client = party(roles, dealer)
    epoch = client.join(patience=PATIENCE)
    first, second = opened(client, epoch, 0), opened(client, epoch, 1)
    with pytest.raises(Desync, match="the dealer does not know the caches"):
        dealt(client, epoch, cache=first, kept=(first, second))  # the second run's note did not keep it
    third = opened_beside(client, epoch, 2, second)
    assert dealt(client, epoch, cache=second, kept=(second, third)) == 3
    with pytest.raises(Desync, match=r"the dealer does not know the caches .*; begin a new one"):
        dealt(client, epoch, cache=cache, kept=(second, third))
    assert dealt(client, epoch, kept=(second,)) == 4, "what was refused used no serial"
    assert list(dealer._caches[epoch.name]) == [second]
    assert dealt(client, epoch) == 5 and not dealer._caches[epoch.name], "a session that has ended leaves no seed"


def test_runs_that_are_stored_leave_sessions_as_they_are(roles: Path, dealer: DealerServer) -> None:
    """They are asked for by whoever knows of no session: a store is filled while texts are being generated."""
    parties = [party(roles, dealer, rank) for rank in (0, 1)]
    epoch = [client.join(patience=PATIENCE) for client in parties][1]
    name = opened(parties[1], epoch, 0)
    assert dealt(parties[1], epoch, space=STORED, count=2) == 0
    assert dealt(parties[1], epoch, cache=name, kept=(name,)) == 1
    for cache in ("", name):
        with pytest.raises(Desync, match="asks for runs of a session to store"):
            dealt(parties[1], epoch, space=STORED, cache=cache, kept=(name,))
    assert dealt(parties[1], epoch, cache=name, kept=(name,)) == 2 and dealt(parties[1], epoch, space=STORED) == 2


def test_asks_for_stores_take_no_place_of_live_ones(roles: Path, tmp_path: Path) -> None:
    """A party asks for a lot to store and does not read it; another is served meanwhile, by a dealer with one place."""
    with closing(serve(roles, tmp_path / "state", max_streams=1)) as dealer:
        first, filling, live = (party(roles, dealer, rank) for rank in (0, 1, 1))
        epoch = [client.join(patience=PATIENCE) for client in (first, filling, live)][1]
        _, channel = filling.deal(epoch, STORED, -1, PLAN, nonces=(NO_NONCE, fresh_nonce()), count=100_000,
                                  patience=PATIENCE)
        with closing(channel):
            assert [dealt(live, epoch) for _ in range(3)] == [0, 1, 2]
            for tag, nbytes in PLAN.corrections():
                assert channel.receive(tag, nbytes).size == nbytes


def test_runs_are_counted_while_they_are_being_dealt(roles: Path, dealer: DealerServer) -> None:
    """Whoever gives way to them waits until their corrections have come, or never will."""
    precedence = Precedence()
    client = DealerClient(("127.0.0.1", dealer.port), client_context(identity(roles, "party1")), MODEL, WEIGHTS,
                          deadline=10.0, precedence=precedence)
    epoch = client.join(patience=PATIENCE)
    for end in ("close", "abort"):
        _, channel = client.deal(epoch, LIVE, -1, PLAN, nonces=(fresh_nonce(), fresh_nonce()), patience=PATIENCE)
        assert precedence._live == 1
        channel.abort("enough") if end == "abort" else channel.close()
        channel.close()
        assert precedence._live == 0
    with pytest.raises(Desync, match="join again"):
        dealt(client, Epoch("ff" * 16, {1: bytes(32)}))
    assert precedence._live == 0


def opened_beside(client: DealerClient, epoch: Epoch, serial: int, other: str) -> str:
    nonces = fresh_nonce(), fresh_nonce()
    assert dealt(client, epoch, cache="", nonces=nonces, kept=(other,)) == serial
    return run_name(epoch.name, LIVE, serial, nonces, PLAN.digest)


def test_a_dealer_that_was_started_again_knows_no_caches(roles: Path, dealer: DealerServer, tmp_path: Path) -> None:
    client = party(roles, dealer)
    epoch = client.join(patience=PATIENCE)
    name = opened(client, epoch, 0)
    dealer.close()
    again = serve(roles, tmp_path / "state")
    try:
        with pytest.raises(Desync, match="started again since the session was opened"):
            dealt(party(roles, again), epoch, cache=name, kept=(name,))
    finally:
        again.close()


def test_serials_ascend_above_what_either_has_used(roles: Path, dealer: DealerServer) -> None:
    client = party(roles, dealer)
    epoch = client.join(patience=PATIENCE)
    assert dealt(client, epoch, count=3) == 0
    assert dealt(client, epoch) == 3
    assert dealt(client, epoch, after=9) == 10
    assert dealt(client, epoch) == 11
    party(roles, dealer, 0).join(patience=PATIENCE)
    assert dealt(client, epoch, space=STORED) == 0, "every space has serials of its own"


def test_only_party_1_receives_corrections(roles: Path, dealer: DealerServer) -> None:
    client = party(roles, dealer, 0)
    with pytest.raises(Desync, match="only party 1 receives corrections; party0 asked for them"):
        dealt(client, client.join(patience=PATIENCE))


@pytest.mark.parametrize(("changes", "said"), [
    ({"space": "other"}, "names the space 'other'; the spaces are live and stored"),
    ({"plan": WEIGHTS}, "party1 asks for masks of weights in a run; only the plan of provisioning"),
    ({"space": STORED}, "the parties must have joined the epoch before runs are stored"),
    ({"nonces": (NO_NONCE, bytes(16))}, "the nonces of party 0 and of party 1"),
    ({"nonces": (bytes(16), NO_NONCE)}, "the nonces of party 0 and of party 1"),
    ({"nonces": (bytes(16),)}, "the nonces of party 0 and of party 1"),
    ({"nonces": (bytes(16), bytes(16)), "space": STORED}, "the nonces of party 0 and of party 1"),
    ({"count": 0}, "asks for 0 run"), ({"count": MOST_RUNS + 1}, f"the dealer gives 1 to {MOST_RUNS} runs"),
    ({"after": -2}, "after -2"),
    *(({"request": bad}, "a request's id has 32 hexadecimal digits, and a store's runs have none; party1 names")
      for bad in ("ab", "ab" * 17, "AB" * 16, "zz" * 16, "ab" * 16 + "\n", 3, None, [], ["ab" * 16], True)),
    *(({"trace": bad}, "a trace's id has 32 hexadecimal digits; party1 names")
      for bad in ("ab", "00" * 16, "AB" * 16, 3, None)),
])
def test_what_the_dealer_does_not_give(roles: Path, dealer: DealerServer, changes: dict[str, Any], said: str) -> None:
    client = party(roles, dealer)
    with pytest.raises(Desync, match=said):
        dealt(client, client.join(patience=PATIENCE), **changes)
    assert dealt(client, client.join(patience=PATIENCE)) == 0, "what was refused used no serial"


def test_the_dealer_knows_which_request_and_which_trace_runs_are_for(
    roles: Path, dealer: DealerServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    noted: list[Any] = []
    monkeypatch.setattr(dealer.audit, "append", lambda event, facts: noted.append(facts | {"event": event}))
    client = party(roles, dealer)
    epoch = client.join(patience=PATIENCE)
    with caplog.at_level("INFO", "secformer"):
        dealt(client, epoch, request="ab" * 16, trace="cd" * 16)
        dealt(client, epoch)
        until(lambda: [record.message for record in caplog.records].count("dealt") == 2)
    first, second = (record.__dict__["fields"] for record in caplog.records if record.message == "dealt")
    assert (first["request"], first["trace"]) == ("ab" * 16, "cd" * 16)
    assert second["request"] == "" and "trace" not in second
    assert noted.pop(0) == {"event": "epoch", "model": MODEL, "epoch": epoch.name, "instead of": "", "why": "first"}
    assert [facts["request"] for facts in noted] == ["ab" * 16, ""]


def test_another_epoch_is_refused(roles: Path, dealer: DealerServer) -> None:
    client = party(roles, dealer)
    epoch = client.join(patience=PATIENCE)
    with pytest.raises(Desync, match=f"epoch is {epoch.name} at the dealer but old at party 1; join again"):
        dealt(client, Epoch("old", epoch.seeds))


def test_what_was_recorded_for_a_model_goes_with_its_masks(
    roles: Path, dealer: DealerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes keep the programs of models whose masks are kept, and of no others."""
    known: list[Any] = []
    gone: list[Any] = []

    class Noted(Launches):
        def run(self, name: Any, *rest: Any) -> Any:
            known.append(name)
            return super().run(name, *rest)

        def forget(self, which: Any = everything) -> None:
            gone.extend(name for name in known if which(name))

    monkeypatch.setattr(dealer_server, "EPOCHS", 1)
    monkeypatch.setattr(dealer_server, "runs_on", lambda *args: Noted())
    first, second = party(roles, dealer), party(roles, dealer, model="cd" * 32)
    dealt(first, first.join(patience=PATIENCE))
    until(lambda: len(dealer._lanes) == 1)
    assert len(known) == 1 and not gone
    second.join(patience=PATIENCE)
    assert gone == known


@pytest.mark.parametrize(("note", "said"), [
    ({"streams": "secformer keys 1"}, "the dealer makes streams of the format '.*', party1 of 'secformer keys 1'"),
    ({"version": "0.0.9"}, f"the dealer runs version {__version__}, party1 runs '0.0.9'"),
    ({"ask": "sing"}, "party1 asks for 'sing'; the dealer answers join and deal"),
    ({"model": "short"}, "must name the model by its digest, 64 hexadecimal digits; got 'short'"),
    ({"model": 3}, "must hold 'model' as str, got int"),
    ({"weights": None}, "must hold 'weights' as dict, got NoneType"),
    ({"weights": PLAN.as_dict()}, "must hold masks of weights only"),
])
def test_notes_that_mean_nothing_are_refused(roles: Path, dealer: DealerServer, note: dict[str, Any],
                                             said: str) -> None:
    client = party(roles, dealer)
    client._model |= note
    with pytest.raises(Desync, match=said):
        client._ask(lambda plans: {"ask": "join"} | note, dict, PATIENCE)
    assert party(roles, dealer).join(patience=PATIENCE)


def test_a_dealer_that_is_away(roles: Path, dealer: DealerServer) -> None:
    client = party(roles, dealer)
    dealer.close()
    with pytest.raises(PeerLost, match="dealer"):
        client.join(patience=0.2)


def test_seeds_of_dealt_runs_leave_the_dealer(roles: Path, dealer: DealerServer, tmp_path: Path) -> None:
    """In memory at once, on disk when the run is dealt, of live runs and of stored ones."""
    client = party(roles, dealer)
    epochs = [party(roles, dealer, rank).join(patience=PATIENCE) for rank in (0, 1)]
    assert dealt(client, epochs[1], after=6) == 7
    assert dealt(client, epochs[1], space=STORED, count=3) == 0
    (file,) = (tmp_path / "state").glob("epoch-*.json")
    until(lambda: [epoch_of(json.loads(file.read_text())).left(space)[0][0] for space in (LIVE, STORED)] == [8, 3])
    dealer.close()
    with closing(State(tmp_path / "state")) as state:
        known = state.epoch(MODEL, WEIGHTS.digest)
        assert known is not None and known.joined == {0, 1}
        for space, serial in ((LIVE, 7), (LIVE, 0), (STORED, 0), (STORED, 2)):
            for seeds in known.runs[space].values():
                with pytest.raises(ReusedRandomness):
                    seeds.take(serial)
    assert all(epoch.left(LIVE)[0][0] == 0 for epoch in epochs), "the parties have theirs, until they use them"


def test_a_party_that_asks_for_none_gets_no_seeds_of_runs(roles: Path, dealer: DealerServer) -> None:
    epoch = party(roles, dealer).join(patience=PATIENCE, runs=False)
    assert set(epoch.seeds) == {1} and not epoch.runs
    with pytest.raises(Desync, match="Start both parties, and deal when they are ready"):
        dealt(party(roles, dealer), epoch, space=STORED)


def test_a_second_dealer_on_the_same_state_does_not_start(roles: Path, dealer: DealerServer, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the state folder .* is in use by process"):
        serve(roles, tmp_path / "state")


def test_runs_that_have_begun_go_on_in_the_old_epoch(roles: Path, dealer: DealerServer, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of their corrections comes. The dealer keeps nothing of that epoch, nor of caches that they open."""
    client, nonces, real = party(roles, dealer), (fresh_nonce(), fresh_nonce()), dealer._dealt
    epoch, reached, goes_on = client.join(patience=PATIENCE), threading.Event(), threading.Event()
    wanted = client.deal(epoch, LIVE, -1, PLAN, nonces=nonces, patience=PATIENCE)[1]
    for tag, nbytes in PLAN.corrections():
        wanted.receive(tag, nbytes)

    def slow(*args: Any) -> None:
        reached.set()
        assert goes_on.wait(30)
        real(*args)

    monkeypatch.setattr(dealer, "_dealt", slow)
    serial, channel = client.deal(epoch, LIVE, -1, PLAN, nonces=nonces, patience=PATIENCE, cache="")
    assert reached.wait(30)
    (dealer._state.folder / ORDER).touch()
    dealer.tend()
    goes_on.set()
    for tag, nbytes in PLAN.corrections():
        assert channel.receive(tag, nbytes).size == nbytes
    channel.close()
    assert serial == 1 and not dealer._caches.get(epoch.name) and epoch.name not in dealer._dealers
    with pytest.raises(Desync, match=rf"epoch is \w+ at the dealer but {epoch.name} at party 1; join again"):
        client.deal(epoch, LIVE, -1, PLAN, nonces=nonces, patience=PATIENCE)
    new = client.join(patience=PATIENCE)
    assert new.name != epoch.name and dealt(client, new) == 0
    client.close()


def test_an_order_that_cannot_be_done_is_tried_again(roles: Path, dealer: DealerServer,
                                                     monkeypatch: pytest.MonkeyPatch,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    client = party(roles, dealer)
    epoch = client.join(patience=PATIENCE)
    (dealer._state.folder / ORDER).touch()
    with monkeypatch.context() as patch:
        patch.setattr(dealer._state, "fresh", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left")))
        dealer.tend()
    assert "epoch not replaced" in [record.message for record in caplog.records]
    assert client.join(patience=PATIENCE) == epoch
    dealer.tend()
    assert client.join(patience=PATIENCE) != epoch
    client.close()


def test_an_epoch_ends_by_its_age_where_the_settings_say_so(roles: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DealerSettings(("127.0.0.1", 0), tmp_path / "state", identity(roles, "dealer"), deadline=10.0,
                              backend="numpy", epoch_days=2)
    with closing(DealerServer(settings)) as dealer, closing(party(roles, dealer)) as client:
        epoch = client.join(patience=PATIENCE)
        for days, over in ((1.9, False), (2.1, True)):
            monkeypatch.setattr(dealer._rotation, "_clock", lambda days=days: time.time() + days * DAY)
            dealer.tend()
            assert (client.join(patience=PATIENCE) != epoch) is over
