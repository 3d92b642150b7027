"""The whole view of either party, in every verb of the session: every bit and every pair of bits are fair coins, and no
secret shows (see `labs/secrecy_lab`). A verb, a kind of correlation or a message that no view covers fails a test."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from mpc_lab import ULP, alone, whether_zero
from parities_lab import FALSE_ALARM, MOST_VIEWS, leaks, missed
from secrecy_lab import Input, N, Program, View, views_of
from tree import ROOT, modules

from secformer.mpc.dealer.plan import KINDS
from secformer.mpc.functions import Exponential, Series
from secformer.mpc.rounds import Steps
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.shares import Share

ONE, TWO, PAIR = (Input(),), (Input(2),), (Input(), Input())
UNIT = (Input(16, (ULP, *[0.0] * 15)),)  # words: a 1 at one of four places
SHORT = Series(5, (0.0, 1.0), (0.0, 0.5))
LOW = Series(5, (0.0, 1.0), (0.0, 0.5), domain=(-9.0, 9.0))
Case = tuple[Callable[[], Program | list[Program]], Sequence[Input]]


def once(program: Program, inputs: Sequence[Input] = ONE) -> Case:
    return lambda: program, inputs


def narrow(s: Any, x: Share, width: int, frac: int = 0) -> Share:
    return Share(s, x.data, frac, width, width - frac - 2)


def guarded(program: Program) -> Program:
    def body(s: Any, *xs: Share) -> None:
        with s.guarding({N: np.arange(N)}, N):
            program(s, *xs)

    return body


def standing() -> list[Program]:
    """A weight that is opened once, and two requests that multiply with it: each sample has a weight of its own."""
    weights: dict[Any, Any] = {}

    def opening(s: Any, x: Share, w: Share) -> None:
        weights[s] = s.open_weight(w.data.reshape(N, 1, 1))

    def request(s: Any, x: Share, w: Share) -> None:
        s.matmul(x.reshape(N, 1, 1), weights[s], magnitude=6)

    return [opening, request, request]


def cached() -> list[Program]:
    """A text that grows: two steps, of which the second multiplies with the row that the first has opened."""
    caches: dict[Any, Any] = {}

    def step(s: Any, q: Share, k: Share) -> None:
        recording = caches.get(s) is None
        cache = caches.setdefault(s, s.cache(0, (N, 1)))
        cache.grow(2)
        s.matmul(q.reshape(1, N, 1, 1), cache.taking(k.reshape(1, N, 1)).transposed(), magnitude=6)
        assert recording or cache.filled == 2

    return [step, step]


def together(s: Any, x: Share, y: Share) -> None:
    with s.one_round():
        s.matmul(x.reshape(N, 1, 1), y.reshape(N, 1, 1), magnitude=6)
        s.mul(x, narrow(s, y, 31, 16), magnitude=6)
        s.series(y, [SHORT])


def coins(s: Any, x: Share) -> None:
    """A coin has four words: so many blocks that there is one word for each sample."""
    for _ in range(N // 4):
        with s.guarding({N: np.arange(N)}, N):
            pass


def aside(s: Any, x: Share, y: Share) -> None:
    def steps() -> Steps:
        s.square(x)
        yield
        s.mul(x, y)

    with s.beside(steps()):
        s.mul(y, narrow(s, x, 31, 16), magnitude=6)
        s.series(y, [SHORT])


def rows(s: Any, x: Share) -> None:
    alone(s, s.unit_rows(s.accept(x.data, frac=0, operand=True), [(0, 16)]))


def checks(s: Any, x: Share) -> None:
    """A test whether words are 0 has few words of its own: so many tests that there is one of a tag for each sample."""
    for n in range(0, N, 4):
        alone(s, whether_zero(s, x[n : n + 4]))


FEW = ("unknownfactor", "digest", "tag")  # what `checks` has enough words of, for each sample

# By verb, then by what is special.
VERBS: Mapping[str, Mapping[str, Case]] = {
    "share": {"by either party": once(lambda s, x: [s.share(np.zeros(N), owner, shape=(N,)) for owner in (0, 1)])},
    "open_weight": {"and two requests": (standing, PAIR)},
    "cache": {"two steps": (cached, PAIR)},
    "reveal": {"to the client": once(lambda s, x: s.reveal(s.square(x, magnitude=12), CLIENT))},
    "settle": {"a product with a public factor": once(lambda s, x: s.settle(x * 0.3)),
               "guarded": once(guarded(lambda s, x: s.settle(s.checked((x * 0.3).promise(6), -9.0, 9.0, "in")))),
               "to few bits": once(lambda s, x: s.settle((x * 0.3).promise(6), width=40))},
    "lift": {"of 31 bits": once(lambda s, x: s.lift(narrow(s, x, 31, 16))),
             "of 3 bits": once(lambda s, x: s.lift(narrow(s, x, 3)))},
    "mul": {"whole words": once(lambda s, x, y: s.mul(x, y, whole=True), PAIR),
            "six bytes": once(lambda s, x, y: s.mul(x, y), PAIR),
            "pending": once(lambda s, x, y: s.mul(x * 0.3, (y * 0.7).promise(5)), PAIR),
            "lifted, 4 and 5 bits": once(lambda s, x, y: s.mul(narrow(s, x, 4), narrow(s, y, 5), magnitude=6), PAIR),
            "guarded": once(guarded(lambda s, x, y: s.mul(s.checked((x * 0.3).promise(6), -9.0, 9.0, "in"), y)), PAIR)},
    "square": {"six bytes": once(lambda s, x: s.square(x)),
               "17 bits": once(lambda s, x: s.square(x, magnitude=3)),
               "lifted": once(lambda s, x: s.square(narrow(s, x, 31, 16)))},
    "mul_many": {"an operand in two products": once(lambda s, x, y: s.mul_many([(x, y), (x, x)], magnitude=6), PAIR),
                 "and the operand itself":
                     once(lambda s, x, y: (lambda z: s.mul_many([(z, z)], settled=[z]))(x * 0.3), PAIR)},
    "matmul": {"rows": once(lambda s, x, y: s.matmul(x.reshape(N, 2, 1), y.reshape(N, 1, 1), magnitude=6),
                            (Input(2), Input()))},
    "matmul_many": {"an operand in two products":
                    once(lambda s, x, y: s.matmul_many([(x.reshape(N, 1, 1), y.reshape(N, 1, 1)),
                                                        (x.reshape(N, 1, 1), x.reshape(N, 1, 1))], magnitude=6), PAIR)},
    "series": {"two functions": once(lambda s, x: s.series(x, [SHORT, SHORT])),
               "pending": once(lambda s, x: s.series(x * 0.3, [SHORT])),
               "guarded": once(guarded(lambda s, x: s.series(x, [LOW])))},
    "exponential": {"21 bits": once(lambda s, x: s.exponential(x, Exponential(5, 0.0))),
                    "guarded": once(guarded(lambda s, x: s.exponential(x, Exponential(5, 0.0))))},
    "less": {"two thresholds": once(lambda s, x: s.less(x, [1.0, -1.0], bound=60.0, precision=2, magnitude=6)),
             "two blocks": once(lambda s, x: s.less(x, [0.0], bound=31.5, precision=4, narrow=True)),
             "guarded": once(guarded(lambda s, x: s.less(x, [0.0], bound=31.0, precision=1, narrow=True)))},
    "relu": {"one block": once(lambda s, x: s.relu(x, bound=60.0, precision=1))},
    "maximum": {"of three": once(lambda s, x: s.maximum(x, 1, bound=31.5, precision=0), (Input(3),))},
    "select": {"of settled values": once(lambda s, b, x, y: s.select(narrow(s, b, 48), x, y), (*PAIR, Input()))},
    "reached": {"two thresholds": once(lambda s, x: s.reached(x, [-3.0, 5.0], low=-31.0, high=31.0, precision=1,
                                                         width=16), TWO),
                "guarded": once(guarded(lambda s, x: s.reached(x.reshape(N, 1), [1.0], low=-31.0, high=31.0,
                                                               precision=0, width=16)))},
    "one_round": {"a matrix product, a product and a series": once(together, PAIR)},
    "unit_rows": {"unit rows": once(rows, UNIT)},
    "whether_zero": {"many checks": once(checks, (Input(1, (0.0,)),))},
    "beside": {"products beside products": once(aside, PAIR)},
    "guarding": {"coins": once(coins)},
    "expect": {"a product": once(guarded(lambda s, x, y: s.expect(x, 0, 0.1, "one", by=y)), PAIR)},
    "expect_within": {"a value": once(guarded(lambda s, x: s.expect_within(x, -8.0, 9.0, "sum")))},
}


def scoped(s: Any, x: Share) -> None:
    with s.scope("here"), s.agreeing(lambda f: f), s.taking_back():
        s.forget_weights(s.weights)


# What talks to nobody. In `apply` and `values`, nobody has the numbers.
LOCAL: Mapping[str, Program] = {
    "accept": lambda s, x: s.accept(x.data),
    "add": lambda s, x: s.add(x, x),
    "broadcast_to": lambda s, x: s.broadcast_to(x.reshape(N, 1), (N, 2)),
    "checked": lambda s, x: s.checked(x, 0.0, 1.0, "x"),
    "concatenate": lambda s, x: s.concatenate([x, x], 0),
    "due": lambda s, x: s.due(x),
    "index": lambda s, x: x[s.index(np.arange(3))],
    "negate": lambda s, x: s.negate(x),
    "public": lambda s, x: s.public(1.0, (N,)),
    "scale": lambda s, x: s.scale(x, 0.3),
    "subtract": lambda s, x: s.subtract(x, x),
    "sum": lambda s, x: s.sum(x, 0),
    "transpose": lambda s, x: s.transpose(x.reshape(N, 1), (1, 0)),
    **dict.fromkeys(["scope", "agreeing", "taking_back", "forget_weights"], scoped),
}
REFUSED = {"apply", "values"}
HELD = {"held"}  # a weight's share: what was opened, and the own part of its mask, put together

CASES = [(verb, name) for verb, cases in VERBS.items() for name in cases]


@cache
def observed(verb: str, name: str, trivial: bool = False) -> tuple[View, View]:
    program, inputs = VERBS[verb][name]
    return views_of(program(), inputs, trivial=trivial)


@pytest.mark.parametrize(("verb", "name"), CASES, ids=[f"{verb}: {name}" for verb, name in CASES])
def test_a_view_is_fair_coins(verb: str, name: str) -> None:
    views = observed(verb, name)
    few = ("coin", *FEW) if name == "unit rows" else "coin"
    assert all(left.lower().startswith(few) for view in views for left in view.few)
    assert verb != "guarding" or not any(view.few for view in views)
    assert leaks(views) == []


@pytest.mark.parametrize("verb", ["settle", "mul", "less", "reached"])
def test_so_it_is_where_one_party_holds_the_secret_alone(verb: str) -> None:
    """As public constants are shared: party 1's shares of the inputs are 0, and say nothing of the masks either."""
    name = next(iter(VERBS[verb]))
    assert leaks([v.without_guesses() for v in observed(verb, name, trivial=True)]) == []


def test_a_result_is_one_message_to_the_one_who_learns_it() -> None:
    for to in (0, 1):
        views = views_of(lambda s, x, to=to: s.reveal(s.square(x, magnitude=12), to))
        assert ["reveal" in view.verbs for view in views] == [to == 0, to == 1]
        for view in views:
            view.parts = [p for p in view.parts if not p.name.startswith("reveal")]  # which is the result
        assert leaks(views) == []


# ---- nothing is forgotten -------------------------------------------------------------------------------------------


def test_every_method_of_a_session_has_a_view_or_is_local() -> None:
    methods = {name for name, _ in inspect.getmembers(Session, inspect.isfunction) if not name.startswith("_")}
    assert methods == VERBS.keys() | LOCAL.keys() | REFUSED | HELD
    assert not VERBS.keys() & (LOCAL.keys() | REFUSED | HELD)


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_local_operators_talk_to_nobody(name: str) -> None:
    for view in views_of(LOCAL[name]):
        assert not view.verbs and not view.kinds


def test_a_row_of_a_later_step_is_seen_without_its_standing_mask() -> None:
    for view in observed("cache", "two steps"):
        assert [p.name for p in view.parts].count("product 1: without own mask (2)") == 2  # two slots


def test_every_kind_of_correlation_is_in_a_view() -> None:
    seen = set().union(*(view.kinds for case in CASES for view in observed(*case)))
    assert seen == set(KINDS.values())


def test_every_message_is_in_a_view() -> None:
    """By the names that the sources give to what they open, send and receive."""
    named = set()
    for path in modules().values():
        if str(path).startswith("mpc/") and "net" not in path.parts:
            for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
                first = None
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                    by_party = ast.unparse(node.func.value) in ("party", "self.party", "self._party")
                    first = node.args[0] if by_party and node.func.attr in ("open", "receive") else None
                elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                    first = node.value.elts[0]  # a verb that may share its round
                if isinstance(first, ast.Constant):
                    named.add(first.value)
    seen = set().union(*(view.verbs for case in CASES for view in observed(*case)))
    assert seen | {"reveal"} == named != set()  # revealing to a party has a test of its own


def test_the_suite_seldom_fails_for_nothing_and_finds_what_counts() -> None:
    assert FALSE_ALARM < 1e-6
    assert 2 * (len(CASES) + 100) < MOST_VIEWS  # and those of recipes, and of a verb that is shared trivially
    assert missed(0.1) < 1e-3 and missed(0.15) < 1e-22
