"""Guarded programs: what is marked, what is not, who learns it, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import KERNELS, SEEDS, examples, kernels_named, looks_uniform

from secformer.mpc.dealer import kinds
from secformer.mpc.dealer.kinds import Coin, Lift, SeriesMask, Witness
from secformer.mpc.errors import SettingsError
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.guarding import Guarded
from secformer.mpc.ops import guard as watches
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.mpc.simulate import Outcome, World

Body = Callable[[Session, Share], Any]
WAVE = Series(5, (0.0, 1.0, 0.25), (0.0, 0.5, 0.0), domain=(-6.0, 6.0))


def guarded(body: Body, texts: int) -> Callable[[Session, np.ndarray], Any]:
    """A program that guards `body`, of values whose first axis counts texts."""

    def program(s: Session, x: Any) -> Any:
        with s.guarding({texts: np.arange(texts)}, texts, Guarded(apart=True)) as guard:
            body(s, s.share(x if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=x.shape))
        return guard.words

    return program


def marks(body: Body, x: np.ndarray, *, kernels: str = "numpy") -> tuple[np.ndarray, Outcome]:
    """(texts, places) booleans: what the client learns of x (texts, ...)."""
    outcome = World(kernels=kernels_named(kernels)).run(guarded(body, len(x)), x, x)
    return (outcome.results[0] + outcome.results[1]) != 0, outcome


def seen(body: Body, x: np.ndarray) -> np.ndarray:
    return np.asarray(guarded(body, len(x))(PlainSession(strict=False), x)) != 0


# each body, and the interval that its values are checked for: comparisons and exponentials look a little farther, since
# values may lie at the very end of what they are stated for
BODIES: dict[str, tuple[Body, float, float]] = {
    "series": (lambda s, x: s.series(x, [WAVE]), -6.0, 6.0),
    "exponential": (lambda s, x: s.exponential(x, Exponential(5, 0.5)), Exponential(5, 0.5).low, 1.75),
    "less": (lambda s, x: s.less(x, [1.0, -2.0], bound=9.0), -11.25, 11.25),
    "coarse less": (lambda s, x: s.less(x, [0.0], bound=7.9, precision=6), -9.875, 9.875),
    "relu": (lambda s, x: s.relu(x, bound=5.0), -6.25, 6.25),
    "settled": (lambda s, x: s.settle(s.checked((x * 0.7).promise(5), -10.0, 12.0, "input")), -10.0 / 0.7, 12.0 / 0.7),
    "already settled": (lambda s, x: s.settle(s.checked(x.promise(6), -10.0, 12.0, "input")), -10.0, 12.0),
    "a view": (lambda s, x: s.settle(s.checked((x * 0.7).promise(5), -7.0, 7.0, "input").reshape(*x.shape, 1)[:, ::-1]),
               -10.0, 10.0),
    "into a product": (lambda s, x: s.mul(s.checked((x * 0.7).promise(5), -7.0, 7.0, "input"), x), -10.0, 10.0),
    "from the right": (lambda s, x: s.mul(x, s.checked((x * 0.7).promise(5), -7.0, 7.0, "input")), -10.0, 10.0),
    "a lifted square": (lambda s, x: s.square(s.checked((x * 0.7).promise(5), -7.0, 7.0, "input")), -10.0, 10.0),
    "into a product as it is": (lambda s, x: s.mul(s.checked(x, -9.0, 11.0, "input"), x[:, :1]), -9.0, 11.0),
    "into a matrix product": (lambda s, x: s.matmul(s.checked(x * 0.7, -7.0, 7.0, "input").reshape(-1, x.shape[-1], 1),
                                                    x.reshape(-1, 1, x.shape[-1])), -10.0, 10.0),
    "truncated into a matrix product":
        (lambda s, x: s.matmul(s.checked(s.square(x), -20.0, 90.25, "input").reshape(-1, x.shape[-1], 1),
                               x.reshape(-1, 1, x.shape[-1])), -9.5, 9.5),
}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", BODIES)
def test_the_texts_that_left_are_marked_and_no_other(name: str, kernels: str) -> None:
    body, low, high = BODIES[name]
    length, rng = high - low, np.random.default_rng(3)
    x = rng.uniform(low + 0.11 * length, high - 0.11 * length, size=(9, 40))
    x[1, 7] = high + 0.02 * length   # just outside
    x[2, 0] = low - 0.02 * length
    x[4] += 0.9 * length             # far outside
    x[6, 39] = high + 0.6 * length if "less" not in name and name != "relu" else high * 1.05
    marked, _ = marks(body, x, kernels=kernels)
    assert marked.shape == (9, 1)
    assert marked[:, 0].nonzero()[0].tolist() == [1, 2, 4, 6]
    assert np.array_equal(seen(body, x), marked)


def test_tables_of_many_values_come_in_several_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many guards to a field as there is room for, at least one; what they say is the same."""
    x = np.linspace(2.0, 6.0, 40).reshape(10, 4)
    answers, fields = [], []
    for room in (1, 2 * 8 * x.size, kinds.GUARD_BYTES):
        monkeypatch.setattr(kinds, "GUARD_BYTES", room)
        marked, outcome = marks(lambda s, y: s.expect(y, 2, 0.25, "value"), x)
        answers.append(marked.tolist())
        fields.append([f.count for kind in outcome.plan.kinds for f in kind.derived() if f.xor])
    assert answers[0] == answers[1] == answers[2]
    assert any(map(any, answers[0])) and not all(map(any, answers[0]))
    guards = len(fields[0])
    assert guards > 2 and [len(own) for own in fields] == [guards, -(-guards // 2), 1]
    assert {sum(own) for own in fields} == {guards * 8 * x.size}


@examples(40)
@given(seed=st.integers(0, 999), name=st.sampled_from(sorted(BODIES)))
def test_values_inside_never_are_and_values_outside_always(seed: int, name: str) -> None:
    body, low, high = BODIES[name]
    rng, length = np.random.default_rng(seed), high - low
    x = rng.uniform(low + 0.11 * length, high - 0.11 * length, size=(2, 30))
    off = 2.0**-4 if name == "coarse less" else 2.0**-10  # a few units of the last place that is opened
    x[1, rng.integers(30)] = rng.choice([low - off, high + off])
    marked, _ = marks(body, x)
    assert marked[:, 0].tolist() == [False, True]


@pytest.mark.parametrize(("name", "ends"), [("less", (-9.0, 9.0)), ("coarse less", (-7.9, 7.9)), ("relu", (-5.0, 5.0)),
                                            ("exponential", (-14.3, 0.5))])
def test_the_very_ends_pass(name: str, ends: tuple[float, float]) -> None:
    marked, _ = marks(BODIES[name][0], np.repeat([ends], 200, axis=0).T.reshape(2, 200))
    assert not marked.any()


def test_expectations_are_checked_at_the_end() -> None:
    def body(s: Session, x: Share) -> None:
        with s.scope("early"):
            s.expect(s.mul(x, s.public(4.0, x.shape)), 3, 2.0**-6, "sum")
        with s.scope("late"):
            s.expect(x, 2, 2.0**-6, "variance", by=x)
        s.square(x)

    x = np.full((5, 3, 1), 2.0)
    x[1, 2] = 2.0 * (1.0 + 2.0**-5)
    x[2, 0] = -2.0           # its square is right
    x[3, 1] = 512.0 + 2.0    # right modulo 2^9
    marked, outcome = marks(body, x)
    assert marked.tolist() == [[False, False], [True, True], [True, False], [True, True], [False, False]]
    assert np.array_equal(seen(body, x), marked)
    assert [type(k) for k in outcome.plan.kinds].count(Witness) == 2
    # coin, product, square, and for all expectations: one product, one opening
    assert outcome.cost.rounds == 1 + 1 + 1 + 1 + 1 + 1  # and the sharing of x


def test_wide_expectations() -> None:
    def body(s: Session, x: Share) -> None:
        s.expect_within(x * 0.5, -10.0, 100.0, "variance")

    x = np.array([0.0, 60.0, 170.0, 202.0, -22.0, 4000.0, -4000.0, 2.0**13])[:, None]
    marked, outcome = marks(body, x)
    assert marked[:, 0].tolist() == [False] * 3 + [True] * 5
    assert np.array_equal(seen(body, x), marked)
    assert [type(k) for k in outcome.plan.kinds] == [Coin, Witness]


def test_without_a_guard_nothing_is_spent() -> None:
    def program(s: Session, x: Any) -> Any:
        shared = s.share(x if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=x.shape)
        s.expect(shared, 0, 0.1, "never looked at")
        s.settle(s.checked(shared, 0.0, 1.0, "input"))
        return s.series(shared, [WAVE])

    outcome = World(kernels=kernels_named("numpy")).run(program, np.ones((2, 3)), np.ones((2, 3)))
    assert [type(k) for k in outcome.plan.kinds] == [SeriesMask]
    (kind,) = outcome.plan.kinds
    assert isinstance(kind, SeriesMask)
    assert (kind.guards, kind.spare) == ((), 0)


def test_tables_ride_on_openings_for_nothing() -> None:
    def body(s: Session, x: Share) -> None:
        s.series(x * 0.7, [WAVE])
        s.settle(s.checked((x * 0.3).promise(5), -9.0, 9.0, "input"))

    def bare(s: Session, x: Any) -> None:
        body(s, s.share(x if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=x.shape))

    x, world = np.ones((2, 50)), World(kernels=kernels_named("numpy"))
    with_guard, without = world.run(guarded(body, 2), x, x), world.run(bare, x, x)
    assert with_guard.cost.bytes - without.cost.bytes == 2 * 32  # the coin
    assert with_guard.cost.rounds - without.cost.rounds == 1
    tables = sum(len(kind.guards) for kind in with_guard.plan.kinds if isinstance(kind, SeriesMask | Lift))
    assert with_guard.plan.dealer_bytes - without.plan.dealer_bytes == 8 * tables * x.size
    assert tables == 2 + 2  # the second ones see all bits that are opened
    assert [type(k) for k in with_guard.plan.kinds] == [Coin, SeriesMask, Lift]
    assert (with_guard.plan.rounds, with_guard.plan.bytes) == (with_guard.cost.rounds, with_guard.cost.bytes)


def test_places_are_named_in_order() -> None:
    def body(s: Session, x: Share) -> None:
        with s.scope("layer.0"), s.scope("gelu"):
            s.series(x, [WAVE])
        with s.scope("layer.0"), s.scope("layernorm"):
            s.expect(x, 0, 0.1, "variance")
            s.settle(s.checked((x * 0.3).promise(5), -9.0, 9.0, "input"))

    s = PlainSession()
    x = np.ones((2, 3))
    x[1] = 7.0
    with s.guarding({2: np.arange(2)}, 2) as guard:
        body(s, s.share(x, 0))
    assert guard.places == ["layer.0/gelu: input", "layer.0/layernorm: input", "layer.0/layernorm: variance"]
    assert [(d.text, d.place, d.low, d.high, d.allowed) for d in s.departures] == [
        (1, "layer.0/gelu: input", 7.0, 7.0, (-6.0, 6.0)), (1, "layer.0/layernorm: variance", 7.0, 7.0, (0.9, 1.1))]


@pytest.mark.parametrize("room", [1, 7, 1 << 15])
def test_rows_of_several_texts_and_of_none(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Whether what places say lies in one array or in several."""
    monkeypatch.setattr(watches, "ROOM", room)

    def program(s: Session, x: Any) -> Any:
        with s.guarding({5: np.array([0, 0, 1, -1, 2]), 3: np.arange(3)}, 3, Guarded(apart=True)) as guard:
            shared = s.share(x if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=x.shape)
            s.series(shared, [WAVE])
            s.series(shared[:3], [WAVE])
        return guard.words

    for bad, expected in ((1, [[True, False], [False, True], [False, False]]), (3, [[False, False]] * 3),
                          (4, [[False, False], [False, False], [True, False]])):
        x = np.zeros((5, 4))
        x[bad, 2] = 7.0
        outcome = World(kernels=kernels_named("numpy")).run(program, x, x)
        assert ((outcome.results[0] + outcome.results[1]) != 0).tolist() == expected


def test_a_guard_that_checks_nothing_finds_nothing() -> None:
    def program(s: Session, x: Any) -> Any:
        with s.guarding({5: np.arange(5)}, 5, Guarded(apart=True)) as guard:
            pass
        return guard.words

    outcome = World(kernels=kernels_named("numpy")).run(program)
    assert [words.shape for words in outcome.results] == [(5, 0)] * 2


def test_what_a_client_learns_is_uniform() -> None:
    """Were the difference a function of how many values failed, or of which, the client would learn that."""
    body = BODIES["series"][0]
    found = []
    for run in range(40):
        x = np.zeros((50, 6))
        x[:, : 1 + run % 6] = 7.0
        outcome = World(kernels=kernels_named("numpy")).run(guarded(body, 50), x, x)
        mine, theirs = outcome.results
        found.append(mine ^ (np.uint64(0) - theirs))
    words = np.concatenate(found).reshape(-1)
    assert np.unique(words).size == words.size
    assert looks_uniform(words, 64)


def test_places_fold_into_one() -> None:
    def body(s: Session, x: Share) -> None:
        s.series(x, [WAVE])
        s.less(x, [0.0], bound=6.5)

    def program(s: Session, x: Any) -> Any:
        with s.guarding({3: np.arange(3)}, 3) as guard:
            body(s, s.share(x if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=x.shape))
        return guard.words

    x = np.zeros((3, 4))
    x[1], x[2, 1] = 7.0, -6.2
    outcome = World(kernels=kernels_named("numpy")).run(program, x, x)
    assert ((outcome.results[0] + outcome.results[1]) != 0).tolist() == [[False], [True], [True]]
    assert program(PlainSession(strict=False), x).tolist() == [[0.0], [1.0], [1.0]]


def test_equal_breaches_do_not_cancel() -> None:
    x = np.full((1, 64), 7.0)  # an even number of values that fail alike
    marked, _ = marks(BODIES["series"][0], x)
    assert marked.all()


def test_a_repeatable_world_repeats() -> None:
    x = np.full((2, 4), 7.0)
    program = guarded(BODIES["series"][0], 2)
    first, second = (World(kernels=kernels_named("numpy"), unsafe_seeds=SEEDS).run(program, x, x) for _ in range(2))
    assert np.array_equal(first.results[0], second.results[0])


def test_one_guard_at_a_time_and_it_ends_with_its_block() -> None:
    s = PlainSession()
    with s.guarding({1: np.arange(1)}, 1), pytest.raises(SettingsError, match="guarded already"), \
            s.guarding({1: np.arange(1)}, 1):
        pass
    assert not s.guarded
    with pytest.raises(ZeroDivisionError), s.guarding({1: np.arange(1)}, 1):
        1 / 0  # noqa: B018
    assert not s.guarded


def test_a_settled_value_stays_as_wide_as_it_is() -> None:
    """Its sum is larger than what was promised of it, and so must not be lifted from the window of the promise."""
    def program(s: Session, x: Any) -> Any:
        shared = s.share(x if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=x.shape)
        with s.guarding({1: np.arange(1)}, 1):
            (shared,) = s.settle(s.checked(shared.promise(3), -8.0, 8.0, "input"))
        return s.reveal(s.mul(shared.sum(-1), s.public(1.0, (1,)), magnitude=20), CLIENT)

    x = np.full((1, 3000), 7.5)
    a, b = World(kernels=kernels_named("numpy")).run(program, x, x).results
    assert (a + b).view(np.int64) / 2.0**16 == 22500.0


def test_results_are_the_same_with_and_without() -> None:
    def program(guard: bool) -> Callable[[Session, Any], Any]:
        def body(s: Session, x: Any) -> Any:
            shared = s.share(x if getattr(s, "party", None) is None or s.party.rank == 0 else None, 0, shape=x.shape)
            both = s.settle(s.exponential(shared, Exponential(5, 0.5)), *s.series(shared, [WAVE]))
            return s.reveal(s.concatenate(both), CLIENT)

        def inner(s: Session, x: Any) -> Any:
            if not guard:
                return body(s, x)
            with s.guarding({len(x): np.zeros(len(x), dtype=int)}, 1):
                return body(s, x)

        return inner

    x = np.linspace(-5.5, 0.4, 300)
    for kernels in KERNELS:
        values = []
        for guard in (True, False):
            a, b = World(kernels=kernels_named(kernels)).run(program(guard), x, x).results
            values.append((a + b).view(np.int64) / 2.0**16)
        assert np.abs(values[0] - values[1]).max() <= 2.0**-12


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_block_that_checks_nothing_marks_nothing(kernels: str) -> None:
    found, _ = marks(lambda s, x: s.square(x), np.ones((3, 2)), kernels=kernels)
    assert found.shape == (3, 0)
