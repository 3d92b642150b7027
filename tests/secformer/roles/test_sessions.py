"""Texts that grow at two engines in one process, over TLS, with the dealer beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")
pytest.importorskip("torch")

from engines_lab import Engines, Gate
from roles_lab import no_serial_twice, until
from sessions_lab import LONGEST, speaker

from secformer.models.run.decoding import new_tokens
from secformer.models.run.local import PlainModel, SecureModel
from secformer.mpc.errors import InputError, PeerLost, ProtocolError
from secformer.mpc.net.tls import client_context
from secformer.mpc.ops.linear import OpenedRows
from secformer.mpc.party import Party
from secformer.roles import engine as module
from secformer.roles.asking import BothParties, Busy
from secformer.roles.failures import AtLimit
from secformer.roles.halves import fresh_id
from secformer.roles.messages import StepRequest
from secformer.roles.rotation import ORDER
from secformer.roles.settings import load_client

PROMPT, OTHER = "hello world", "The world"
NEW = {"max_new_tokens": 5, "draft": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return speaker(tmp_path_factory.mktemp("speaker"))


@pytest.fixture(scope="module")
def twin(made: Any) -> PlainModel:
    return PlainModel.from_pretrained(made[0], profile=made[1], public_prefix="auto")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, made: Any) -> Iterator[Engines]:
    with Engines(tmp_path_factory.mktemp("engines"), made[0], {"profile": made[1]}, sessions=3) as engines:
        yield engines
    no_serial_twice(engines.roles)


@pytest.fixture
def up(engines: Engines) -> Iterator[Engines]:
    engines.ready()
    yield engines
    for engine in engines.engines:
        engine.sessions.end_all("the test has ended")


def prices(found: Any) -> list[tuple[int, int, int]]:
    """Rounds and bytes of each step."""
    return [(step.cost.rounds, step.cost.bytes, step.cost.dealer_bytes) for step in found.steps]


def test_tokens_are_those_of_one_process_and_of_the_twin(up: Engines, made: Any, twin: PlainModel) -> None:
    wanted = twin.generate(PROMPT, **NEW)
    with SecureModel.from_pretrained(made[0], profile=made[1], backend="numpy",
                                     public_prefix="auto") as model:
        here = model.generate(PROMPT, **NEW)
    with up.client() as client:
        found = client.generate(PROMPT, **NEW)
        drafted = client.generate(PROMPT, max_new_tokens=5)
        long, own = (client.generate(PROMPT, max_new_tokens=17, draft=draft) for draft in (None, made[0]))
        assert not [engine.sessions.count() for engine in up.engines if engine.sessions.count()], "texts are closed"
        scored, whole = client.score(PROMPT), client(PROMPT)
    assert found.tokens == here.tokens == wanted.tokens == drafted.tokens and len(found.tokens) == 5
    assert own.tokens == long.tokens and [s.tokens for s in own.steps] == [8, 8], "all that the same model drafts"
    assert found.trusted and np.allclose(found.logprobs, wanted.logprobs, atol=5e-3)
    assert scored.log_likelihood == pytest.approx(twin.score(PROMPT).log_likelihood, abs=0.05)
    close(whole, twin(PROMPT))
    # a served token's row is checked: no round, but at each party 128 bytes and 32 for the row; 48 are dealt
    assert prices(found) == [(rounds, sent + 320, dealt + 48) for rounds, sent, dealt in prices(here)]
    assert len(prices(found)) == 4


def close(a: Any, b: Any) -> None:
    assert np.abs(a.logits - b.logits).max() < 5e-3


def test_two_clients_take_turns(up: Engines, twin: PlainModel) -> None:
    """Each text is its own: the logits are those of the twin's texts."""
    with up.client() as mine, up.client("other") as theirs:
        texts = [mine.decoding(), theirs.decoding()]
        plain = [twin.decoding(), twin.decoding()]
        for ids in ([[40, 41, 42], [70]], [[43], [71, 72]], [[44], [73]]):
            for text, same, new in zip(texts, plain, ids, strict=True):
                close(text.take(new, last=len(new)), same.take(new, last=len(new)))
        assert [engine.sessions.count() for engine in up.engines] == [2, 2]
    until(lambda: not any(engine.sessions.count() for engine in up.engines))


def test_going_back_takes_new_slots(up: Engines, twin: PlainModel, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, int, int, int]] = []
    real = OpenedRows.take

    def take(rows: OpenedRows, first: int, d: Any, rank: int) -> None:
        taken.extend((rank, id(rows), first + i, len(rows.opened)) for i in range(len(d)))
        real(rows, first, d, rank)

    monkeypatch.setattr(OpenedRows, "take", take)
    with up.client() as client:
        text, plain = client.decoding(), twin.decoding()
        for keep, new in ((1, [40, 41, 42, 43]), (3, [50]), (4, [51, 52]), (1, [60, 61])):
            for each in (text, plain):
                each.back(keep)
            close(text.take(new, last=len(new)), plain.take(new, last=len(new)))
        assert text.length == 3 and text.timeline.used == 10
        close(text.take([70, 71, 72], last=2), plain.take([70, 71, 72], last=2))
    slots = [place[:3] for place in taken]
    assert len(set(slots)) == len(slots) == 12 * 2 * 4, "each slot of each cache of both parties is opened once"


def test_a_step_may_not_run_beyond_the_context_or_behind_what_is_there(up: Engines) -> None:
    with up.client() as client:
        text = client.decoding()
        with pytest.raises(InputError, match=f"this model's context holds {LONGEST}"):
            text.take([40] * LONGEST)
        assert text.take([40]).logits.shape == (1, client.public.inputs.words)
        for keep in (0, 3, LONGEST):
            bad = client.decoding()
            bad._ids, bad.timeline.length = [1] * keep, keep  # a client that does not count
            with pytest.raises(InputError, match=r"a step takes 1 or more tokens, .* behind 1 to 1 tokens here"):
                bad._step([40], 1)
        text.take([41])


def test_a_session_is_its_clients_alone(up: Engines) -> None:
    with up.client() as mine, up.client("other") as theirs:
        text, stranger = mine.decoding(), theirs.decoding()
        text.take([40, 41])
        stranger.take([40, 41])
        name, stranger.name = stranger.name, text.name
        with pytest.raises(ProtocolError, match="there is no such session here"):
            stranger.take([42])
        text.take([42])
        stranger.close()  # under the other's name
        text.take([43])
        assert (("other", name) in up.engines[0].sessions._open) and text.length == 5


def test_an_ended_session_takes_no_more_steps(up: Engines) -> None:
    with up.client() as client:
        text = client.decoding()
        text.take([40])
        text.close()
        with pytest.raises(ProtocolError, match=r"this text was closed.*begin a new one"):
            text.take([41])
        text._ended, text._begun = "", True
        with pytest.raises(ProtocolError, match=r"the session has ended \(its client ended it\); begin a new one"):
            text.take([41])
        with pytest.raises(ProtocolError, match=r"a step of this text failed.*begin a new one"):
            text.take([41])


def test_the_oldest_of_a_client_makes_room_but_not_anothers(up: Engines) -> None:
    with up.client() as mine, up.client("other") as theirs:
        texts = [mine.decoding() for _ in range(4)]
        for text in texts:
            text.take([40])
        with pytest.raises(ProtocolError, match="another session of the same client needed its"):
            texts[0].take([41])
        texts[3].take([41])
        with pytest.raises(ProtocolError, match="3 sessions are open here, and there is no room for one more"):
            theirs.decoding().take([40])
        texts[1].close()
        theirs.decoding().take([40])


@pytest.mark.parametrize(("limit", "why"), [({"session_idle": 0.01}, "it was not used for 0.01 s"),
                                            ({"session_age": 0.01}, "it was open for 0.01 s")])
@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_idle_or_old_ends(up: Engines, monkeypatch: pytest.MonkeyPatch, rank: int, limit: Any,
                                  why: str) -> None:
    """One party is enough."""
    with up.client() as client:
        text = client.decoding()
        text.take([40])
        sessions = up.engines[rank].sessions
        monkeypatch.setattr(sessions, "_settings", replace(sessions._settings, **limit))
        time.sleep(0.02)
        with pytest.raises(ProtocolError, match=f"party {rank}: the session has ended .{why}"):
            text.take([41])
        assert [engine.sessions.count() for engine in up.engines] == [0, 0]


def test_bytes_are_limited(up: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = up.engines[1].sessions
    monkeypatch.setattr(sessions, "_slot_bytes", 6 * 2**10)
    monkeypatch.setattr(sessions, "_settings", replace(sessions._settings, session_mb=1))  # 170 slots
    with up.client() as client:
        texts = [client.decoding() for _ in range(3)]
        for text in texts:
            text.take([40])
        assert sessions.count() == 2
        with pytest.raises(ProtocolError, match="another session of the same client needed its room"):
            texts[0].take([41])
        monkeypatch.setattr(sessions, "_slot_bytes", 17 * 2**10)
        with pytest.raises(ProtocolError, match="a text of 64 slots takes 1 MB here, more than session_mb allows"):
            client.decoding().take([40])


def test_parties_that_keep_something_else_do_not_compute(up: Engines) -> None:
    """Of the same shape, but a token stands elsewhere: the masks would differ, and so would the answer."""
    with up.client() as client:
        text = client.decoding()
        text.take([40, 41, 42])
        (session,) = up.engines[0].sessions._open.values()
        session.text.timeline._positions[-1] = 1
        with pytest.raises(ProtocolError, match="party 0: the parties do not keep the same of this session"):
            text.take([43])
        assert [engine.sessions.count() for engine in up.engines] == [0, 0]
        client.decoding().take([43])


def test_parties_whose_angles_differ_do_not_link(up: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", (0.05, 0.1))
    numbers = up.engines[0].public.__dict__
    numbers["numbers"], own = "others", up.engines[0].public.numbers
    try:
        up.engines[0]._end_link("only a test")
        until(lambda: "numbers of positions: 'others' here" in up.reports[0].reason, 60)
    finally:
        numbers["numbers"] = own
    up.ready()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_party_that_vanishes_in_the_middle(up: Engines, rank: int, twin: PlainModel,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[tuple[bytes, str]] = []
    real = module.Source

    def source(seed: bytes, run: str, *args: Any) -> Any:
        names.append((seed, run))
        return real(seed, run, *args)

    monkeypatch.setattr(module, "Source", source)
    with up.client() as client:
        texts = [client.decoding(), client.decoding()]
        for text in texts:
            text.take([40, 41])
        for slot in (0, 1):
            Gate(up.channel(rank, slot), after=9, problem=PeerLost("the machine is gone"))
        with pytest.raises(ProtocolError):
            texts[0].take([42])
        up.ready()
        with pytest.raises(ProtocolError, match=r"the session has ended .the link of the two parties was lost"):
            texts[1].take([42])
        assert [engine.sessions.count() for engine in up.engines] == [0, 0]
        again, plain = client.decoding(), twin.decoding()
        close(again.take([40, 41, 42]), plain.take([40, 41, 42]))
    runs = [each for each in names if each[1] != "weights"]
    assert len(set(runs)) == len(runs)


def test_the_views_of_two_steps_together(up: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a party sends in two steps of a session on the same token, and in two of another session: bytes are uniform,
    and so are their differences. Rows of caches differ by their masks: below them, the first layer's values are equal.
    """
    sent: dict[int, list[bytes]] = {0: [], 1: []}
    rows: list[Any] = []
    real_exchange, real_take = Party._exchange, OpenedRows.take

    def exchange(party: Party, verb: str, items: Any, payload: Any) -> Any:
        if all(bits % 8 == 0 for _, bits in items):  # others are filled up to whole bytes
            sent[party.rank].append(np.asarray(payload).tobytes())
        return real_exchange(party, verb, items, payload)

    def take(opened: OpenedRows, first: int, d: Any, rank: int) -> None:
        if rank == 0:
            rows.append(np.asarray(d).ravel() % 2**32)
        real_take(opened, first, d, rank)

    steps = []
    with up.client() as client:
        for text in [client.decoding() for _ in range(2)]:
            text.take([40, 41])
            monkeypatch.setattr(Party, "_exchange", exchange)
            monkeypatch.setattr(OpenedRows, "take", take)
            for _ in range(2):
                text.take([50])
                steps.append([np.frombuffer(b"".join(sent[rank]), np.uint8) for rank in (0, 1)] + [np.array(rows)])
                sent[0], sent[1], rows = [], [], []
            monkeypatch.undo()
    for rank in (0, 1):
        seen = [step[rank] for step in steps]
        assert len({each.size for each in seen}) == 1 and seen[0].size > 2000
        for each in (*seen, *(a - b for a, b in combinations(seen, 2))):
            counts, wanted = np.bincount(each >> 4, minlength=16), each.size / 16
            assert ((counts - wanted) ** 2 / wanted).sum() < 50, "far from uniform, in 15 degrees of freedom"
    for a, b in combinations([step[2] for step in steps], 2):
        apart = np.abs((a - b).astype(np.uint32).astype(np.int32).astype(np.int64))
        assert a.shape == (4, 16) and apart.min() > 2**8, "values below one mask would be a few units apart"


# ---- limits of one client --------------------------------------------------------------------------------------------


def limited(up: Engines, monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    for engine in up.engines:
        sessions = engine.sessions
        monkeypatch.setattr(sessions, "_settings", replace(sessions._settings, **limits))
        monkeypatch.setattr(sessions, "_slot_bytes", 6 * 2**10)


@pytest.mark.parametrize("limits", [{"client_sessions": 2, "sessions": 9}, {"client_session_mb": 1, "sessions": 9}])
def test_one_clients_own_sessions_make_room_while_there_is_room_for_others(
        up: Engines, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]) -> None:
    limited(up, monkeypatch, **limits)
    with up.client() as mine, up.client("other") as theirs:
        texts = [mine.decoding() for _ in range(3)]
        for text in texts:
            text.take([40])
        assert [engine.sessions.count() for engine in up.engines] == [2, 2]
        with pytest.raises(ProtocolError, match="another session of the same client needed its room"):
            texts[0].take([41])
        theirs.decoding().take([40])
        texts[2].take([41])


def test_a_client_whose_sessions_all_run_is_told_its_limit(up: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(up, monkeypatch, client_sessions=1, sessions=9)
    sessions = up.engines[0].sessions
    with up.client() as mine:
        text = mine.decoding()
        text.take([40])
        sessions.admit("client")
        for engine in up.engines:
            (session,) = engine.sessions._open.values()
            monkeypatch.setattr(session, "turn", object())
        with pytest.raises(AtLimit, match="one client may have 1 sessions open here, and all of this"):
            sessions.admit("client")
        sessions.admit("other")
        other = mine.decoding()
        for _ in range(2):  # nothing was begun or ended: the same may be asked again
            with pytest.raises(AtLimit, match="one client may have 1 sessions of 2048 MB here, and all of"):
                other._ask_parties(new_tokens([40]), lambda: (name := fresh_id(), StepRequest(name, other.length, 1)))
        monkeypatch.undo()
        limited(up, monkeypatch, client_sessions=2, sessions=9)
        other.take([40])
        text.take([41])


def test_a_step_at_a_limit_is_asked_again_under_a_new_id(up: Engines, twin: PlainModel,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt but each second is told a limit. A session has the id of the request that opened it at last."""
    asked: list[tuple[str, StepRequest]] = []
    with up.client() as mine, closing(BothParties((("127.0.0.1", 1),) * 2, client_context(
            load_client(up.roles.settings("client")).tls), 1.0)) as patient:
        answered = mine._answered

        def full(way: Any, batch: Any, names: Any, request: str, trace: str, step: StepRequest) -> Any:
            asked.append((request, step))
            if len(asked) % 2:
                raise Busy("this client is at a limit", 0.0)
            return answered(way, batch, names, request, trace, step)

        monkeypatch.setattr(mine, "_answered", full)
        monkeypatch.setattr(mine._ways[0], "patiently", patient.patiently)
        text, wanted = mine.decoding(), twin.decoding()
        for ids in ([40, 41], [42]):
            close(text.take(ids), wanted.take(ids))
        (first, _), (second, opened), (third, step), (fourth, again) = asked
        assert len({first, second, third, fourth}) == 4 and step == again
        assert opened.session == second == step.session and mine._sessions == {second}


def test_the_sessions_of_one_client_end(up: Engines) -> None:
    with up.client() as mine, up.client("other") as theirs:
        text, other = mine.decoding(), theirs.decoding()
        text.take([40])
        other.take([40])
        for engine in up.engines:
            engine.sessions.end_of("client", "its certificate was revoked")
        with pytest.raises(ProtocolError, match=r"the session has ended \(its certificate was revoked"):
            text.take([41])
        other.take([41])


def test_a_new_epoch_ends_sessions_with_the_reason(up: Engines, twin: PlainModel) -> None:
    """The masks of their caches are gone. A new session of the same text goes on, and other requests are not lost."""
    with up.client() as mine:
        text, same = mine.decoding(), twin.decoding()
        close(text.take([40]), same.take([40]))
        (old,) = up.dealer._caches
        (up.roles.role_folder("dealer") / "state" / ORDER).touch()
        up.dealer.tend()
        assert old not in up.dealer._caches
        with pytest.raises(ProtocolError, match=r"the session has ended \(the dealer has begun a new epoch\); begin a "
                                                r"new one"):
            text.take([41])
        again, same = mine.decoding(), twin.decoding()
        close(again.take([40, 41]), same.take([40, 41]))
        assert set(up.dealer._caches) and old not in up.dealer._caches
