"""What a share refuses, and how it says so."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpc_lab import compute

from secformer.mpc.errors import SecformerError, ShapeError
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

F = Series(5, (0.0, 1.0), (0.0, 0.5))


def sessions() -> list[tuple[Session, Share]]:
    plain, recorder, party = PlainSession(), PlanRecorder(), World().parties[0]
    return [
        (plain, plain.accept(np.ones(3))),
        (recorder, recorder.accept(ghost((3,)))),
        (party, party.accept(np.ones(3, dtype=np.uint64))),
    ]


SESSIONS = [0, 1, 2]


@pytest.mark.parametrize("which", SESSIONS)
@pytest.mark.parametrize(
    "use",
    [
        bool,
        float,
        int,
        lambda x: not x,
        lambda x: 1 if x else 0,
        lambda x: x < 1,
        lambda x: x > 1,
        lambda x: x <= 1,
        lambda x: x > x,
        lambda x: x >= 1,
        lambda x: x == 1,
        lambda x: x != x,
        lambda x: 1 in [x],
        lambda x: min(x, x),
        lambda x: np.float64(1) < x,
        lambda x: np.ones(3) == x,
    ],
)
def test_truth_order_and_numbers_are_refused(which: int, use: Callable[[Any], Any]) -> None:
    _, x = sessions()[which]
    with pytest.raises(ShapeError, match=r"nobody may see it.*session\.less"):
        use(x)


@pytest.mark.parametrize("which", SESSIONS)
def test_a_star_between_shares_names_the_verb(which: int) -> None:
    _, x = sessions()[which]
    with pytest.raises(ShapeError, match=r"session\.mul"):
        x * x


@pytest.mark.parametrize("which", SESSIONS)
@pytest.mark.parametrize(
    "use", [operator.truediv, operator.pow, operator.matmul, operator.floordiv, operator.mod, operator.and_]
)
def test_operators_without_meaning_do_not_exist(which: int, use: Callable[[Any, Any], Any]) -> None:
    _, x = sessions()[which]
    with pytest.raises(TypeError):
        use(x, x)


@pytest.mark.parametrize("which", SESSIONS)
def test_a_share_is_no_key(which: int) -> None:
    _, x = sessions()[which]
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)


@pytest.mark.parametrize("which", SESSIONS)
def test_numpy_on_the_left_defers(which: int) -> None:
    _, x = sessions()[which]
    for y in (np.ones(3) + x, np.ones(3) - x, np.ones(3) * x, np.float64(2.0) * x, np.int64(2) + x):
        assert isinstance(y, Share)
    with pytest.raises(TypeError):
        np.exp(x)


def test_showing_a_share_shows_no_words() -> None:
    for _, x in sessions():
        assert repr(x) == "Share(shape=(3,), frac=16, width=64, magnitude=14)"
        assert str(x) == repr(x)


USES: dict[str, Callable[[Session, Share, Share], Any]] = {
    "add": lambda s, x, y: x + y,
    "subtract": lambda s, x, y: x - y,
    "mul": lambda s, x, y: s.mul(x, y),
    "mul, left": lambda s, x, y: s.mul(y, x),
    "matmul": lambda s, x, y: s.matmul(x.reshape(1, 3), y.reshape(3, 1)),
    "concatenate": lambda s, x, y: s.concatenate([x, y]),
    "select": lambda s, x, y: s.select(y, x, x),
    "settle": lambda s, x, y: s.settle(y),
    "lift": lambda s, x, y: s.lift(y),
    "reveal": lambda s, x, y: s.reveal(y, "client"),
    "series": lambda s, x, y: s.series(y, [F]),
    "exponential": lambda s, x, y: s.exponential(y, Exponential(5, 0.0)),
    "less": lambda s, x, y: s.less(y, [0.0], bound=4.0),
    "relu": lambda s, x, y: s.relu(y, bound=4.0),
    "maximum": lambda s, x, y: s.maximum(y, 0, bound=4.0),
    "scale": lambda s, x, y: s.scale(y, 2.0),
    "negate": lambda s, x, y: s.negate(y),
    "sum": lambda s, x, y: s.sum(y, 0),
}


@pytest.mark.parametrize("verb", sorted(USES))
@pytest.mark.parametrize("mine", SESSIONS)
@pytest.mark.parametrize("theirs", SESSIONS)
def test_shares_of_another_session_are_refused(verb: str, mine: int, theirs: int) -> None:
    session, x = sessions()[mine]
    _, y = sessions()[theirs]
    with pytest.raises(ShapeError, match="another session"):
        USES[verb](session, x, y)


@pytest.mark.parametrize("which", SESSIONS)
def test_weights_of_another_session_are_refused(which: int) -> None:
    """Its index would name another standing mask: a wrong result without a word."""
    session, x = sessions()[which]
    other = PlainSession().open_weight(np.ones((3, 2)))
    with pytest.raises(ShapeError, match="another session"):
        session.matmul(x.reshape(1, 3), other)


def test_a_weight_is_for_matmul_only() -> None:
    for s in (PlainSession(), PlanRecorder()):
        w = s.open_weight(np.ones((3, 3)))
        with pytest.raises((SecformerError, TypeError, AttributeError)):
            s.matmul(w, s.public(np.ones((3, 3))))  # type: ignore[arg-type]
        for pair in ((s.public(np.ones((3, 3))), w), (w, s.public(np.ones((3, 3)))), (w, w)):
            with pytest.raises(ShapeError, match="takes shares, got a weight"):
                s.mul(*pair)  # type: ignore[arg-type]


def test_shapes_that_do_not_broadcast_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match=r"(?i)broadcast"):
        compute(lambda s, x, y: s.mul(x, y), np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match=r"(?i)broadcast"):
        compute(lambda s, x, y: x + y, np.ones(3), np.ones(4))
