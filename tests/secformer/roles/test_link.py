"""The conversation of the parties: what must be the same, and notes that cannot be read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from links_lab import PLAN, notes_pair, said

from secformer.mpc.errors import Desync
from secformer.mpc.fixed import FixedPoint
from secformer.roles.link import Offer, Reply, Taken, compare, hear_offer, hear_reply, hello, stored_of


def greeting(rank: int, **changes: Any) -> dict[str, Any]:
    public: Any = SimpleNamespace(fixed=FixedPoint(), recipe=SimpleNamespace(name="faithful"), digest="m" * 64)
    note = hello(public, PLAN, "epoch", rank=rank, opened=False, in_flight=2)
    note["same"] |= changes
    return note


def test_two_parties_that_agree() -> None:
    compare(greeting(0), greeting(1), "party 1")
    compare(greeting(1), greeting(0), "party 0")


@pytest.mark.parametrize("name", list(greeting(0)["same"]))
def test_a_difference_is_told_with_both_values(name: str) -> None:
    with pytest.raises(Desync, match=f"because they differ: {name}: .* here, 'else' at party 1"):
        compare(greeting(0), greeting(1, **{name: "else"}), "party 1")


def test_ranks_must_be_different() -> None:
    with pytest.raises(Desync, match="rank: 0 here, 0 at party 1; one must be 0, the other 1"):
        compare(greeting(0), greeting(0), "party 1")


def test_no_hello_at_all() -> None:
    with pytest.raises(Desync, match="party 1 did not say hello first"):
        compare(greeting(0), {"take": None}, "party 1")


@pytest.mark.parametrize("reply", [
    Reply(Taken("id", "s", "plan", "live", 7, state="x", client="alice", nonce=bytes(range(16)))),
    Reply(Taken("id", error="no material")),
    Reply(), Reply(here=(), renew=True), Reply(Taken("id", error="x"), ("id", "other"))])
def test_what_is_taken_comes_over(reply: Reply) -> None:
    near, far = notes_pair()
    reply.tell(far)  # type: ignore[arg-type]
    assert hear_reply(near) == reply  # type: ignore[arg-type]


def test_logs_call_a_run_by_space_and_serial() -> None:
    assert Taken("id", "shape", "plan", "live", 7).run == "live/7"


def test_nothing_taken() -> None:
    assert hear_reply(said({"take": None})) == Reply()


TAKES = {"take": "id", "shape": "s", "plan": "p", "space": "live", "serial": 7, "error": "", "state": "", "client": "c",
         "nonce": "00" * 16}


@pytest.mark.parametrize("note", [{"take": "id"}, {"take": None, "here": "id"}, {"take": None, "here": [1]},
                                  *({**TAKES, **odd} for odd in (
    {"serial": "x"}, {"serial": "7"}, {"serial": 7.0}, {"serial": True}, {"serial": -2}, {"nonce": ""},
    {"nonce": "00" * 15}, {"nonce": " " + "0" * 31}, {"nonce": "0_" * 16}, {"nonce": None}, {"space": 1},
    {"error": None}, {"take": 3}, {"state": []}, {"client": 5}))])
def test_an_answer_that_cannot_be_read(note: dict[str, Any]) -> None:
    with pytest.raises(Desync, match="party1 answered an offer with a note that cannot be read"):
        hear_reply(said(note))


@pytest.mark.parametrize("offer", [
    Offer({"b": "alice", "a": "bob"}, {"live": 3}, 1), Offer({}, {"live": -1}), Offer({"a": "bob"}, {}, 0),
    Offer({}, {}, here=("a",)), Offer({}, {}, renew=True)])
def test_an_offer_comes_over(offer: Offer) -> None:
    near, far = notes_pair()
    offer.tell(far)  # type: ignore[arg-type]
    came = hear_offer(near)  # type: ignore[arg-type]
    assert came == offer and list(came.requests) == list(offer.requests), "in fair order"


def test_each_offer_has_a_nonce_of_its_own() -> None:
    assert len({Offer({}, {}).nonce for _ in range(99)}) == 99


def test_what_is_stored_comes_over() -> None:
    note = {"stored": [[0, 4], [7, 1 << 40]]}
    assert stored_of(note, "party 0") == [(0, 4), (7, 1 << 40)]


@pytest.mark.parametrize("odd", [{}, {"stored": 3}, {"stored": [[0]]}, {"stored": [["0", 1]]}, {"stored": [[-1, 1]]},
                                 {"stored": [[0.0, 1]]}])
def test_what_is_stored_that_cannot_be_read(odd: dict[str, Any]) -> None:
    with pytest.raises(Desync, match="party 0 does not say which stored runs it has the seeds of"):
        stored_of(odd, "party 0")


OFFERS = {"requests": {"a": "b"}, "last": {"live": 1}, "slot": 0, "nonce": "00" * 16}


@pytest.mark.parametrize("note", [{}, *({**OFFERS, **odd} for odd in (
    {"nonce": ""}, {"nonce": "0 " * 16}, {"nonce": 5}, {"slot": "0"}, {"slot": True}, {"slot": None},
    {"last": {"live": "1_0"}}, {"last": {"live": -2}}, {"last": [1]}, {"requests": ["a"]}, {"requests": {"a": 1}},
    {"requests": 3}, {"here": {"a": 1}}))])
def test_an_offer_that_cannot_be_read(note: dict[str, Any]) -> None:
    with pytest.raises(Desync, match="party1 made an offer that cannot be read"):
        hear_offer(said(note))


@pytest.mark.parametrize(("name", "value"), [("in_flight", 2.0), ("ring", "64"), ("in_flight", True)])
def test_values_of_another_type_are_not_the_same(name: str, value: Any) -> None:
    """Found by fuzzing: in Python, 1, 1.0 and True are equal."""
    mine = greeting(0, **({"in_flight": 1} if value is True else {}))
    with pytest.raises(Desync, match=f"{name}: .* here"):
        compare(mine, greeting(1, **{name: value}), "party 1")
    with pytest.raises(Desync, match="rank: 0 here, True"):
        compare(greeting(0), greeting(1) | {"rank": True}, "party 1")


def test_a_value_that_only_the_other_party_states_is_a_difference() -> None:
    with pytest.raises(Desync, match="later: None here, 1 at party 1"):
        compare(greeting(0), greeting(1, later=1), "party 1")
