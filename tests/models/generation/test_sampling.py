"""The choice of tokens: what `transformers` keeps and how it weighs it, draws that seeds repeat, settings that are not
allowed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from secformer.models.generation.sampling import TOP_K, Choice, Chooser, Sampling, processed
from secformer.mpc.errors import RangeError, SettingsError, ShapeError

V = 131


def library(logits: np.ndarray, ids: list[int], sampling: Sampling) -> np.ndarray:
    """What the library's processors make of logits, in the order in which its `generate` puts them."""
    torch = pytest.importorskip("torch")
    import transformers as lib

    chain = lib.LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(lib.RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if sampling.do_sample:
        top_k = 50 if sampling.top_k is None else sampling.top_k
        chain += [lib.TemperatureLogitsWarper(float(sampling.temperature or 1)),
                  *([lib.TopKLogitsWarper(top_k)] if top_k else []),
                  *([] if sampling.top_p is None or sampling.top_p == 1 else [lib.TopPLogitsWarper(sampling.top_p)])]
    out = chain(torch.tensor([ids], dtype=torch.long), torch.from_numpy(logits.copy())[None])
    return np.asarray(out[0].numpy())


ROWS = {
    "normal": np.random.default_rng(0).normal(0, 3, V),
    "ties": np.random.default_rng(1).integers(-3, 4, V).astype(float),
    "all equal": np.zeros(V),
    "one peak": np.where(np.arange(V) == 17, 800.0, 0.0),
    "quarters": np.concatenate([np.log([0.5, 0.25, 0.125, 0.125]), np.full(V - 4, -900.0)]),
    "two tokens": np.array([0.25, -1.0]),
    "one token": np.array([-2.5]),
}
SETTINGS = [
    {}, {"temperature": 0}, {"temperature": 0, "top_k": 3}, {"temperature": 1.0}, {"temperature": 0.3},
    {"temperature": 7},
    {"top_k": 1}, {"top_k": 5}, {"top_k": 0}, {"top_k": 10_000}, {"top_p": 0.9}, {"top_p": 0.0}, {"top_p": 1.0},
    {"top_p": 1}, {"top_p": 1e-9}, {"top_p": 0.999999}, {"top_p": 0.4, "top_k": 0}, {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.5, "top_k": 7}, {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1},
]


@pytest.mark.parametrize("given", SETTINGS, ids=str)
@pytest.mark.parametrize("row", ROWS)
def test_scores_are_those_of_transformers(row: str, given: dict[str, Any]) -> None:
    logits, sampling = ROWS[row], Sampling(**given)
    ids = [i for i in (0, 1, 1, 17, 40, 130, 131, 5000) if len(logits) == V or i < 1 or i > 130]
    found, expected = processed(logits, ids, sampling), library(logits, ids, sampling)
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=1e-13, atol=0)
    if row == "normal" or sampling.top_p is None:  # of equal scores, the library may keep any at the cut of top_p
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=0)
    assert np.isfinite(found).any()


def test_of_equal_tokens_the_later_ones_stay() -> None:
    assert np.isfinite(processed(np.zeros(4), [], Sampling(top_p=0.5))).tolist() == [False, False, True, True]


def test_logits_stay_as_they_are() -> None:
    logits = ROWS["normal"].copy()
    processed(logits, [0, 1], Sampling(temperature=0.5, top_k=3, top_p=0.5, repetition_penalty=2.0))
    assert np.array_equal(logits, ROWS["normal"])


@pytest.mark.parametrize(("given", "samples"), [
    ({}, False), ({"temperature": 0}, False), ({"temperature": 0.0, "top_k": 5, "top_p": 0.5}, False),
    ({"temperature": 1}, True), ({"top_k": 0}, True), ({"top_p": 1.0}, True), ({"seed": 3}, False),
    ({"repetition_penalty": 2.0}, False),
])
def test_what_is_given_says_whether_tokens_are_sampled(given: dict[str, Any], samples: bool) -> None:
    assert Sampling(**given).do_sample is samples


def test_greedy_takes_the_first_of_the_largest() -> None:
    choice = Chooser(Sampling()).choose(np.array([1.0, 3.0, 3.0, 0.0]), [])
    assert choice.token == 1
    assert choice.logprob == pytest.approx(3 - math.log(2 * math.exp(3) + math.e + 1), abs=1e-15)
    assert Chooser(Sampling(repetition_penalty=1.5)).choose(np.array([1.0, 3.0, 2.9, 0.0]), [1, 7]).token == 2


def test_log_probabilities_are_the_models_own() -> None:
    """Not those of what was kept, divided and penalised."""
    logits = np.log([0.5, 0.3, 0.2])
    choice = Chooser(Sampling(temperature=0.1, top_k=1, repetition_penalty=3.0)).choose(logits, [0, 1, 2])
    assert choice.logprob == pytest.approx(math.log([0.5, 0.3, 0.2][choice.token]), abs=1e-15)
    assert Chooser(Sampling()).choose(np.array([0.0, -5e4]), []).logprob == 0.0


def test_seeds_repeat_choices() -> None:
    def drawn(seed: int | None) -> list[int]:
        chooser = Chooser(Sampling(temperature=1.0, top_k=0, seed=seed))
        return [chooser.choose(np.zeros(1000), []).token for _ in range(20)]

    assert drawn(7) == drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)
    assert drawn(2**300) == drawn(2**300)


def test_draws_follow_the_probabilities() -> None:
    """20,000 draws: each share lies within 4.5 standard deviations, and what is not kept never comes."""
    probabilities, n = np.array([0.05, 0.55, 0.0, 0.3, 0.1]), 20_000
    logits = np.log(np.where(probabilities > 0, probabilities, 1e-300))
    chooser = Chooser(Sampling(temperature=1.0, top_p=0.96, seed=1))
    counts = np.bincount([chooser.choose(logits, []).token for _ in range(n)], minlength=5)
    kept = np.array([0.05, 0.55, 0.0, 0.3, 0.1])
    assert counts[2] == 0
    assert (np.abs(counts - n * kept) <= 4.5 * np.sqrt(n * kept * (1 - kept))).all()


class _Last:
    """A generator whose number is the largest below 1."""

    def random(self) -> float:
        return float(np.nextafter(1, 0))


def test_the_last_number_draws_a_token_that_was_kept() -> None:
    chooser = Chooser(Sampling(top_k=2))
    chooser._numbers = _Last()  # type: ignore[assignment]
    for logits in (np.array([0.1, 0.2, -3.0, -9.0]), np.array([-40.0, -41.0, -90.0])):
        assert chooser.choose(logits, []).token == 1


def test_every_token_can_be_drawn_where_all_are_kept() -> None:
    chooser = Chooser(Sampling(top_k=0, seed=0))
    assert {chooser.choose(np.zeros(3), []).token for _ in range(60)} == {0, 1, 2}
    assert TOP_K == 50


@pytest.mark.parametrize(("given", "words"), [
    ({"max_new_tokens": 0}, "max_new_tokens must be a positive whole number, got 0"),
    ({"max_new_tokens": 2.0}, "max_new_tokens"), ({"max_new_tokens": True}, "max_new_tokens"),
    ({"temperature": -0.1}, "temperature must be a number from"), ({"temperature": math.nan}, "temperature"),
    ({"temperature": 1e-7}, "or 0 or None for greedy"), ({"temperature": False}, "temperature"),
    ({"repetition_penalty": 1e-320}, "1 for no penalty"), ({"top_p": math.nan}, "top_p"),
    ({"temperature": math.inf}, "temperature"), ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_k": -1}, "top_k must be a whole number"), ({"top_k": 1.5}, "top_k"), ({"top_k": False}, "top_k"),
    ({"top_p": 1.01}, "top_p must be a probability from 0 to 1"), ({"top_p": -0.5}, "top_p"),
    ({"top_p": "all"}, "top_p"),
    ({"repetition_penalty": 0}, "repetition_penalty must be a number from"),
    ({"repetition_penalty": None}, "repetition_penalty"),
    ({"seed": -1}, "seed must be a whole number"), ({"seed": 0.5}, "seed"),
    ({"stop": ""}, "stop must be a text or a list of texts"), ({"stop": ["a", ""]}, "stop"), ({"stop": 5}, "stop"),
    ({"stop": [b"a"]}, "stop"), ({"stop": b"a"}, "stop"), ({"stop": None}, "stop"),
])
def test_settings_that_are_not_allowed(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Sampling(**given)


def test_stops_are_listed() -> None:
    assert Sampling(stop="ab").stops == ("ab",)
    assert Sampling(stop=["ab", "c"]).stops == ("ab", "c")
    assert Sampling().stops == ()


@pytest.mark.parametrize("logits", [np.zeros((1, 4)), np.zeros(0), np.float64(3)])
def test_logits_of_another_shape(logits: Any) -> None:
    with pytest.raises(ShapeError, match=r"shape \(V,\)"):
        Chooser(Sampling()).choose(logits, [])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(bad: float) -> None:
    with pytest.raises(RangeError, match="1 of 3 are not"):
        Chooser(Sampling()).choose(np.array([0.0, bad, 1.0]), [])


def test_nothing_secret_is_shown() -> None:
    assert repr(Choice(28123, -29456.5)) == "Choice()"
    assert "secret" not in repr(Sampling(stop="secret", seed=3))
