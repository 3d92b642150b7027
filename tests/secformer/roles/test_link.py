"""The conversation of the parties: what must be the same, and notes that cannot be read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from links_lab import PLAN, notes_pair, said

from secformer.mpc.errors import Desync
from secformer.mpc.fixed import FixedPoint
from secformer.roles.link import Offer, Reply, Taken, compare, hear_offer, hear_reply, hello


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
    Reply(Taken("id", "s", "plan", "live", 7, state="x", client="alice")), Reply(Taken("id", error="no material")),
    Reply(), Reply(here=(), renew=True), Reply(Taken("id"), ("id", "other"))])
def test_what_is_taken_comes_over(reply: Reply) -> None:
    near, far = notes_pair()
    reply.tell(far)  # type: ignore[arg-type]
    assert hear_reply(near) == reply  # type: ignore[arg-type]


def test_a_run_is_named_by_space_and_serial() -> None:
    assert Taken("id", "shape", "plan", "live", 7).run == "live/7"


def test_nothing_taken() -> None:
    assert hear_reply(said({"take": None})) == Reply()


@pytest.mark.parametrize("note", [{"take": "id"}, {"take": None, "here": "id"}, {"take": None, "here": [1]},
                                  {"take": "id", "shape": "", "plan": "", "space": "", "serial": "x", "error": ""}])
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


@pytest.mark.parametrize("note", [{}, {"requests": ["a"], "last": {}, "slot": 0},
                                  {"requests": {"a": 1}, "last": {}, "slot": 0}, {"requests": 3, "last": {}, "slot": 0},
                                  {"requests": {}, "last": [1], "slot": 0}, {"requests": {"a": "b"}, "last": {}},
                                  {"requests": {}, "last": {"live": "x"}, "slot": 0},
                                  {"requests": {}, "last": {}, "slot": None, "here": {"a": 1}},
                                  {"requests": {"a": "b"}, "last": {}, "slot": None}])
def test_an_offer_that_cannot_be_read(note: dict[str, Any]) -> None:
    with pytest.raises(Desync, match="party1 made an offer that cannot be read"):
        hear_offer(said(note))
