"""Places: who gives way to whom, checked against a plain statement of the rule."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.mpc.net.places import SHELTERED, Place, Places, site


class Crowd:
    """Places, and who was asked to leave them."""

    def __init__(self, most: int, each: int | None = None):
        self.places, self.left = Places(most, each), list[str]()

    def enter(self, holder: str, name: str = "") -> Place | None:
        return self.places.enter(holder, lambda: self.left.append(name or holder))


def test_while_there_is_room_nobody_leaves() -> None:
    crowd = Crowd(3)
    kept = [crowd.enter("a", f"a{i}") for i in range(3)]
    assert len(crowd.places) == 3 and not crowd.left and all(kept)


def test_the_oldest_of_one_holder_gives_way_to_its_newest() -> None:
    """As behind a gateway: all come from one address, and a newcomer still gets in."""
    crowd = Crowd(2)
    for i in range(5):
        assert crowd.enter("a", f"a{i}") is not None
    assert crowd.left == ["a0", "a1", "a2"] and len(crowd.places) == 2


def test_who_has_few_keeps_them_while_another_floods() -> None:
    crowd = Crowd(4)
    assert crowd.enter("known", "the one")
    for i in range(100):
        assert crowd.enter("flood", f"f{i}")
    assert "the one" not in crowd.left and crowd.places.held("known") == 1 and crowd.places.held("flood") == 3


def test_a_known_holder_stays_where_each_stranger_comes_from_elsewhere() -> None:
    crowd = Crowd(4)
    crowd.places.know("party1")
    assert crowd.places.knows("party1") and not crowd.places.knows("b0")
    assert crowd.enter("party1", "the one")
    for i in range(100):
        crowd.enter(f"b{i}")
    assert "the one" not in crowd.left and crowd.places.held("party1") == 1


def test_a_known_holder_cannot_keep_out_strangers_by_many_connections() -> None:
    crowd = Crowd(SHELTERED + 4)
    crowd.places.know("office")
    for i in range(SHELTERED + 4):
        crowd.enter("office", f"office {i}")
    assert crowd.enter("stranger", "stranger") and crowd.left == ["office 0"]


def test_the_busy_do_not_give_way() -> None:
    crowd = Crowd(2)
    busy, idle = crowd.enter("a", "busy"), crowd.enter("a", "idle")
    assert busy and idle
    busy.busy = True
    assert crowd.enter("b") and crowd.left == ["idle"]
    crowd = Crowd(1)
    only = crowd.enter("a")
    assert only
    only.busy = True
    assert crowd.enter("b") is None and not crowd.left and len(crowd.places) == 1
    only.rest()
    assert crowd.enter("b") and crowd.left == ["a"]


def test_who_was_used_last_gives_way_last() -> None:
    crowd = Crowd(3)
    first = crowd.enter("a", "first")
    assert crowd.enter("a", "second") and first
    first.busy = True
    first.rest()
    assert crowd.enter("a", "third") and crowd.enter("a", "fourth") and crowd.left == ["second"]


def test_each_holder_has_a_limit_of_its_own() -> None:
    crowd = Crowd(10, each=2)
    for i in range(4):
        assert crowd.enter("a", f"a{i}")
    assert crowd.left == ["a0", "a1"] and crowd.places.held("a") == 2
    busy = [crowd.enter("b") for _ in range(2)]
    for place in busy:
        assert place
        place.busy = True
    assert crowd.enter("b") is None and crowd.enter("c") is not None


def test_leaving_twice_frees_one_place() -> None:
    crowd = Crowd(2)
    place = crowd.enter("a")
    assert place and crowd.enter("a")
    place.leave()
    place.leave()
    place.rest()
    assert len(crowd.places) == 1 == crowd.places.held("a")


STEPS = st.tuples(st.sampled_from("abc"), st.sampled_from(["enter", "busy", "rest", "leave"]))


@given(st.integers(1, 5), st.lists(STEPS, max_size=60))
def test_the_rule_holds_whatever_happens(most: int, steps: list[tuple[str, str]]) -> None:
    """Never more than there are; nobody busy is asked to leave; who leaves had at least as many as anybody idle."""
    places, here = Places(most), list[Any]()
    for holder, what in steps:
        if what == "enter":
            before, left = [(p.holder, p.busy) for p in here], list[Place]()
            new = places.enter(holder, lambda: None)
            stayed = [p for p in here if p in places._held.get(p.holder, {})]
            left = [p for p in here if p not in stayed]
            assert len(left) <= 1 and not any(p.busy for p in left)
            if left:
                counts = {h: sum(b[0] == h for b in before) + (h == holder) for h, _ in before}
                idle = [counts[h] for h, busy in before if not busy]
                assert counts[left[0].holder] == max(idle)
            here = stayed + ([new] if new is not None else [])
        elif mine := [p for p in here if p.holder == holder]:
            if what == "leave":
                mine[0].leave()
                here.remove(mine[0])
            elif what == "busy":
                mine[0].busy = True
            else:
                mine[0].rest()
        assert len(places) == len(here) <= most


@pytest.mark.parametrize(("host", "holder"), [
    ("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"), ("::1", "::/64")])
def test_an_address_belongs_to_a_site(host: str, holder: str) -> None:
    assert site(host) == holder
