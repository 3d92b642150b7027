"""The whole view of either party in every function of every recipe, and in every further function: every bit and every
pair of bits are fair coins (see `labs/parities_lab`). Of long views, pairs are tested of BITS bits. (Every verb by
itself is tested in all pairs, by `mpc/test_secrecy`.) All are found in the registry and in the modules, so one that no
call here fits fails."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from parities_lab import leaks
from secrecy_lab import Input, N, views_of

import secformer.protocols
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, RECIPES, Function
from secformer.protocols.rope import Turning

ONE, ROW = Input(), Input(2)
AT: Site = {
    "input": Range(-1.0, 1.0), "gate": Range(-1.0, 1.0), "gain": Range(2.0, 2.0), "value": Range(-0.1, 0.1),
    "score": Range(-2.0, 2.0), "spread": Range(-3.0, 0.0), "exp_sum": Range(1.0, 4.0), "quad_sum": Range(50.0, 100.0),
    "relu_sum": Range(1.0, 4.0), "variance": Range(0.2, 2.0), "mean_square": Range(0.5, 1.0),
    "row_sum": Range(-20.0, 20.0),
}
BITS = 2000  # of a view, that go into the pairs: in long views, of each part as many, spread evenly, with both ends
REAL = np.ones((N, 2), dtype=bool)
WIDE = 10  # outputs, for which so many rows are normalised first

# how a function is called: by its field in a recipe, or by its name
Call = tuple[Callable[..., Callable[..., Any]], Sequence[Input]]
ELEMENTWISE: Call = (lambda f: lambda s, x: f(s, x, AT), (ONE,))
CALLS: dict[str, Call] = {
    "gelu": ELEMENTWISE, "tanh": ELEMENTWISE,
    "softmax": (lambda f: lambda s, x, v: f(s, x.reshape(N, 1, 1, 2), v.reshape(N, 1, 2, 1), REAL, AT), (ROW, ROW)),
    "layernorm": (lambda f: lambda s, x, g: f(s, x, g, 0.0, 1e-5, AT), (ROW, ROW)),
    "silu": ELEMENTWISE, "gelu_new": ELEMENTWISE, "quick_gelu": ELEMENTWISE, "relu": ELEMENTWISE,
    "rmsnorm": (lambda f: lambda s, x, g: f(s, x, g, 1e-5, AT), (ROW, ROW)),
    "rmsnorm_linear": (lambda f: lambda s, *given: normed_linear(f, s, *given), (ROW, ROW, Input(WIDE))),
    "maximum": (lambda f: lambda s, x: f(s, x.reshape(N, 2, 1), AT), (ROW,)),
    "rope": (lambda f: lambda s, x: s.settle(f(s, x.reshape(N, 1, 2), np.arange(N), Turning(10_000.0), AT)), (ROW,)),
    "glu": (lambda f: lambda s, x, y: f(s, x, y, AT), (ONE, ONE)),
}


def normed_linear(f: Callable[..., Share], s: Any, x: Share, narrow: Share, wide: Share) -> None:
    """Rows that meet the weight first, and rows that are normalised first; a weight for each sample."""
    f(s, x.reshape(N, 1, 2), s.open_weight(narrow.data.reshape(N, 2, 1)), 1e-5, 6, AT)
    f(s, x[:, :1].reshape(N, 1, 1), s.open_weight(wide.data.reshape(N, 1, WIDE)), 1e-5, 6, AT)


def further() -> dict[str, Function]:
    """Every further function that a module of the protocols has."""
    names = [m.name for m in pkgutil.iter_modules(secformer.protocols.__path__)]
    found = [v for name in names for v in vars(importlib.import_module(f"secformer.protocols.{name}")).values()]
    return {v.name: v for v in found if isinstance(v, Function)}


def functions() -> dict[str, tuple[str, Callable[..., Share]]]:
    """What is to be seen, each once: its name, how it is called, and itself."""
    named = [(field, f) for recipe in RECIPES.values() if recipe is not EXACT
             for field, f in (*recipe.functions.items(), *recipe.others.items())]
    named += [(name, f.protocol) for name, f in further().items()]
    return {f"{name}: {f.__name__}": (name, f) for name, f in named}


@pytest.mark.parametrize("which", functions())
def test_a_view_is_fair_coins(which: str) -> None:
    name, function = functions()[which]
    called, inputs = CALLS[name]
    views = [view.without_guesses() for view in views_of(called(function), inputs)]
    assert not any(view.few for view in views) and all(view.verbs for view in views)
    assert leaks(views, most=BITS // len(views[0].parts), letters=12, after=False) == []


def test_every_recipe_is_seen() -> None:
    assert {name for name, _ in functions().values()} == CALLS.keys()
    assert len(RECIPES) > 5 and len(further()) > 5
    seen = [f for _, f in functions().values()]
    assert all(f in seen for r in RECIPES.values() if r is not EXACT for f in r.functions.values())
