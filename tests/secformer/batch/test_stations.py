"""A cell as the driver sees it, on a clock of the test."""

from __future__ import annotations

from secformer.batch.stations import AHEAD, BUSY, REST, Station


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def station() -> tuple[Station, Clock]:
    clock = Clock()
    return Station("a", 100, 2, clock), clock


def test_it_has_calls_for_its_lanes_and_some_ahead() -> None:
    one, _ = station()
    for call in range(2 + AHEAD):
        assert one.wants() and one.wants(ending=True) == (call < 2)
        one.calls.add(call)
    assert not one.wants()


def test_it_rests_longer_after_each_failure_and_answers_a_probe_first() -> None:
    one, clock = station()
    rests = []
    for _ in range(8):
        one.failed("gone")
        one.failed("gone")  # a call that was lost with it
        assert not one.wants() and not one.serves and one.problem == "gone"
        began = clock.now
        while not one.wants():
            clock.now += 0.5
        rests.append(clock.now - began)
        one.calls.add(1)
        assert not one.wants(), "one probe"
        one.calls.clear()
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30] and one.failures == 8 and REST == (1.0, 30.0)
    one.served(0)
    assert one.serves and one.wants() and one.trusty
    one.failed("gone")
    clock.now += REST[0]
    assert one.wants(), "it begins anew"


def test_an_answer_that_was_on_its_way_ends_no_rest() -> None:
    one, clock = station()
    one.failed("gone")
    one.served(5)
    assert one.rows == 5 and not one.serves and not one.trusty
    clock.now += REST[0]
    assert not one.trusty


def test_a_limit_is_no_failure() -> None:
    one, clock = station()
    one.busy("later", 7.0)
    one.busy("later", None)
    clock.now = 6.9
    assert not one.wants() and one.failures == 0
    clock.now = 7.0
    assert one.wants() and one.trusty
    one.busy("later", None)
    clock.now += BUSY
    assert one.wants()


def test_a_drained_cell_wants_nothing() -> None:
    one, _ = station()
    one.drained = True
    assert not one.wants() and not one.serves
