"""Which texts a run cannot hold is found with few runs; the others are answered."""

from __future__ import annotations

from typing import Any

import pytest

from secformer.commands.refused import answered, told
from secformer.mpc.errors import InputError, ModelError, RangeError
from secformer.views.texts import Refused


class Run:
    """Answers with the texts; fails on some of them."""

    def __init__(self, *bad: Any, error: type[Exception] = RangeError, says: str = "too wide"):
        self.bad, self.error, self.says, self.runs = bad, error, says, 0

    def __call__(self, texts: Any) -> Any:
        self.runs += 1
        assert texts, "an empty run"
        if any(text in self.bad for text in texts):
            raise self.error(self.says)
        return list(texts)


def test_one_run_where_all_is_well() -> None:
    run = Run()
    found = answered(run, ["a", "b"])
    assert (found.texts, found.result, found.refused, run.runs) == (["a", "b"], ["a", "b"], (), 1)


@pytest.mark.parametrize("bad", [[0], [7], [3, 4], [0, 7], [1, 2, 5], list(range(1, 8))])
def test_the_bad_ones_are_found_wherever_they_stand(bad: list[int]) -> None:
    texts = [f"t{i}" for i in range(8)]
    found = answered(Run(*(texts[i] for i in bad)), texts)
    good = [t for i, t in enumerate(texts) if i not in bad]
    assert found.texts == good == found.result
    assert found.refused == tuple(Refused(i, f"text {i}: the model cannot hold its values: too wide") for i in bad)


def test_one_bad_text_of_many_costs_few_runs() -> None:
    run = Run("t700")
    found = answered(run, [f"t{i}" for i in range(1000)])
    assert [each.number for each in found.refused] == [700] and len(found.texts) == 999 and run.runs <= 25


def test_messages_are_told_under_the_number_that_was_given() -> None:
    found = answered(Run("c", error=InputError, says="text 0 has 99 tokens"), ["a", "b", "c"])
    assert found.refused == (Refused(2, "text 2 has 99 tokens"),)


def test_where_every_text_fails() -> None:
    found = answered(Run("x", "y"), ["x", "y"])
    assert found.result is None and found.texts == [] and [each.number for each in found.refused] == [0, 1]
    assert answered(Run(("x", "y")), [("x", "y")]).result is None


@pytest.mark.parametrize("error", [InputError, RangeError])
def test_a_model_that_fails_on_anything_raises_its_own_error(error: type[Exception]) -> None:
    for texts in (["x"], ["x", "y"], [("x", "y")]):
        with pytest.raises(error, match=r"^too wide$"):
            answered(Run("x", "y", ("x", "y"), "a", ("a", "a"), error=error), texts)


def test_other_errors_pass() -> None:
    with pytest.raises(ModelError):
        answered(Run("x", error=ModelError), ["a", "x"])


def test_a_failure_of_texts_together_only_is_raised() -> None:
    def run(texts: Any) -> Any:
        if len(texts) > 1:
            raise RangeError("together")
        return texts

    with pytest.raises(RangeError, match="together"):
        answered(run, ["a", "b"])


def test_the_line_at_the_end() -> None:
    some = tuple(Refused(i, "") for i in range(9))
    assert told(some[:2], ["a"] * 3) == (
        "2 of 3 text(s) could not be run (number 0, 1, counted from 0); the lines above say why")
    assert "7, ...," in told(some, ["a"] * 9)
