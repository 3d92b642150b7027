"""Scripts: which programs have one name, and that their arrays are what parties bring, in order."""

from __future__ import annotations

import inspect
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint

from secformer.models.run.local import SecureModel
from secformer.mpc.backend import Backend
from secformer.mpc.fixed import encode
from secformer.mpc.functions import Series
from secformer.mpc.kernels import kernels_for
from secformer.mpc.primitives import Primitives
from secformer.mpc.script import Script
from secformer.mpc.session import CLIENT
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

MASK, OTHER = np.array([[1, 1, 0]]), np.array([[1, 0, 1]])
F = Series(5, (0.5, 1.0, -0.25), (0.0, 0.5, 0.125))
G = Series(5, (0.5, 1.0, -0.25), (0.0, 0.5, 0.25))
Program = Callable[[Any, Share, Share], Any]


def script(program: Program, shape: tuple[int, ...] = (4, 3)) -> Script:
    return PlanRecorder().script(lambda s: program(s, s.accept(ghost(shape)), s.accept(ghost(shape))))


# What graphs may share: the same steps with other arrays.
ALIKE: dict[str, tuple[Program, Program]] = {
    "masks": (lambda s, x, y: x * MASK, lambda s, x, y: x * OTHER),
    "factors": (lambda s, x, y: x * (MASK * 0.75), lambda s, x, y: x * (OTHER * 0.625)),
    "addends": (lambda s, x, y: x + MASK * 0.5, lambda s, x, y: x + OTHER * 0.25),
    "one addend": (lambda s, x, y: x + 0.5, lambda s, x, y: x + 0.25),
    "public values": (lambda s, x, y: s.public(0.5, (4, 3)), lambda s, x, y: s.public(0.75, (4, 3))),
    "indices": (lambda s, x, y: x[np.array([0, 2])], lambda s, x, y: x[np.array([3, 3])]),
    "two indices": (lambda s, x, y: x[np.array([0, 2]), np.array([1, 1])],
                    lambda s, x, y: x[np.array([0, 2]), np.array([2, 2])]),
}
# What they may not: something is baked in that differs.
APART: dict[str, tuple[Program, Program]] = {
    "a factor": (lambda s, x, y: x * 3, lambda s, x, y: x * 5),
    "a fraction": (lambda s, x, y: x * 0.75, lambda s, x, y: x * 0.625),
    "the scale of factors": (lambda s, x, y: x * (MASK * 0.75), lambda s, x, y: x * (MASK * 0.375)),
    "the type of factors": (lambda s, x, y: x * MASK, lambda s, x, y: x * (MASK * 0.75)),
    "a function": (lambda s, x, y: s.series(x, [F]), lambda s, x, y: s.series(x, [G])),
    "a threshold": (lambda s, x, y: s.less(x, [1.0], bound=4.0), lambda s, x, y: s.less(x, [2.0], bound=4.0)),
    "operands": (lambda s, x, y: s.mul(x, y), lambda s, x, y: s.mul(x, x)),
    "which operand": (lambda s, x, y: x + x, lambda s, x, y: x + y),
    "a sign": (lambda s, x, y: s.mul(-x, y), lambda s, x, y: s.mul(x, -y)),
    "slices": (lambda s, x, y: x[:2] + y[:2], lambda s, x, y: x[:2] + y[2:]),
    "views": (lambda s, x, y: pair(x)[0] + y[:2], lambda s, x, y: pair(x)[1] + y[:2]),
    "entries": (lambda s, x, y: x[0, 0] + y, lambda s, x, y: x[0, 1] + y),
    "which entry": (lambda s, x, y: entries(x)[0] + y, lambda s, x, y: entries(x)[1] + y),
    "an axis": (lambda s, x, y: x[:3].swapaxes(0, 1), lambda s, x, y: x[:3].transpose(0, 1)),
    "a shape": (lambda s, x, y: x[:3].swapaxes(0, 1), lambda s, x, y: x[:3].reshape(3, 3)),
    "the order of parts": (lambda s, x, y: s.concatenate([x, y]), lambda s, x, y: s.concatenate([y, x])),
    "what is revealed": (lambda s, x, y: s.reveal(x, CLIENT), lambda s, x, y: s.reveal(y, CLIENT)),
    "to whom": (lambda s, x, y: s.reveal(x, 0), lambda s, x, y: s.reveal(x, 1)),
    "the number of indices": (lambda s, x, y: x[np.array([0, 2])], lambda s, x, y: x[np.array([0, 1, 2])]),
    "equal arrays": (lambda s, x, y: (x * MASK, y * MASK), lambda s, x, y: (x * MASK, y * OTHER)),
    "texts of a guard": (lambda s, x, y: guarded(s, x, [0, 0, 1, 1]), lambda s, x, y: guarded(s, x, [0, 1, 1, 1])),
    "a checked interval": (lambda s, x, y: guarded(s, x, [0, 0, 1, 1]), lambda s, x, y: guarded(s, x, [0, 0, 1, 1], 2)),
}


def pair(x: Share) -> tuple[Share, Share]:
    return x[:2], x[2:]


def entries(x: Share) -> tuple[Share, Share]:
    return x[0, 0], x[0, 1]


def guarded(s: Any, x: Share, texts: Sequence[int], most: float = 1.0) -> None:
    with s.guarding({4: np.array(texts)}, 2):
        s.settle(s.checked(x * 0.75, -most, most, "x"))


@pytest.mark.parametrize("name", ALIKE)
def test_programs_that_bring_other_arrays_have_one_name(name: str) -> None:
    first, second = map(script, ALIKE[name])
    assert first.name == second.name and first.places == second.places
    facts = [[(a.shape, a.dtype) for a in each.arrays] for each in (first, second)]
    assert facts[0] == facts[1] and first.arrays
    assert any(not np.array_equal(a, b) for a, b in zip(first.arrays, second.arrays, strict=True))
    if "indices" not in name:
        assert first.plan.digest != second.plan.digest  # parties of two processes compare it


@pytest.mark.parametrize("name", APART)
def test_programs_that_do_something_else_have_other_names(name: str) -> None:
    first, second = APART[name]
    assert script(first).name == script(first).name != script(second).name


def test_shapes_tell_programs_apart() -> None:
    assert script(lambda s, x, y: x + y, (4, 3)).name != script(lambda s, x, y: x + y, (3, 4)).name


def test_a_script_has_the_plan_of_the_program() -> None:
    def program(s: Any, x: Share, y: Share) -> Any:
        return s.mul(s.series(x * MASK, [F])[0], y)

    found, recorder = script(program), PlanRecorder()
    plan = recorder.record(lambda s: program(s, s.accept(ghost((4, 3))), s.accept(ghost((4, 3)))))
    assert found.plan == plan and found.plan.digest == plan.digest
    assert [a.tolist() for a in found.arrays] == [encode(MASK.astype(float), 0).tolist()] and found.places == (0,)
    assert recorder.record(lambda s: s.accept(ghost((2,)))).kinds == ()  # no trace stays behind
    with pytest.raises(ZeroDivisionError):
        recorder.script(lambda s: 1 / 0)
    assert recorder.accept(ghost((2,))).data.of is None


@pytest.mark.parametrize("primitive", sorted(Primitives.__abstractmethods__))
def test_every_primitive_is_written_down(primitive: str) -> None:
    """Else a script would not say what a program does. Moving the point leaves all words alone."""
    source = inspect.getsource(getattr(PlanRecorder, primitive))
    assert primitive == "_point" or any(told in source for told in ("_told(", "_trace.", "_take(", "_bilinear("))


# ---- what parties bring ----------------------------------------------------------------------------------------------


class Telling(Backend):
    """The host, which writes down what each role brings."""

    told: dict[str, list[tuple[np.ndarray, bool]]]

    def brought(self, x: np.ndarray, *, zeros: bool = False) -> Any:
        self.told[threading.current_thread().name].append((np.array(x), zeros))
        return super().brought(x, zeros=zeros)


def test_parties_bring_what_the_script_says(tmp_path: Path) -> None:
    """A whole guarded model, on texts of several lengths with holes in their masks."""
    backend = Telling("numpy", np, 1)
    object.__setattr__(backend, "told", defaultdict(list))
    model = SecureModel.from_pretrained(write_checkpoint(tmp_path), backend="numpy")
    world = model.world = World(kernels=kernels_for(backend))
    found: list[Script] = []
    world.script = lambda program, given=None: found.append(world.recorder.script(program, given)) or found[-1]  # type: ignore[method-assign,func-returns-value]
    model.provisioning = None
    model.provision()
    for each in backend.told.values():
        each.clear()
    model({"input_ids": [[2, 5, 7, 9, 3, 6], [2, 6, 3, 8, 3, 0]],
           "attention_mask": [[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0]]})
    (script,) = found
    assert len(script.places) > len(script.arrays) > 5
    for party in ("party 0", "party 1"):
        brought = backend.told[party]
        assert len(brought) == len(script.places)
        for (x, _), place in zip(brought, script.places, strict=True):
            assert x.dtype == script.arrays[place].dtype
            np.testing.assert_array_equal(x, script.arrays[place])
    assert not any(zeros for _, zeros in backend.told["party 0"]) and any(zeros for _, zeros in backend.told["party 1"])


def test_shares_that_stand_are_told_apart() -> None:
    """Such as a model's biases, which were accepted before: which of them a program uses, and what it makes of them."""
    recorder, held = PlanRecorder(), {}

    def accepting(s: Any) -> None:
        for name in "ab":
            held[name] = s.accept(ghost((4, 3)))

    recorder.record(accepting)
    uses: list[Callable[[Any, Share], Any]] = [
        lambda s, x: s.mul(x + held["a"], x), lambda s, x: s.mul(x + held["b"], x),
        lambda s, x: x[:3, :3] + held["a"][:3], lambda s, x: x[:3, :3] + held["a"][1:],
        lambda s, x: x[:3, :3] + held["b"][:3], lambda s, x: x[:3] + held["a"].reshape(3, 4).transpose(1, 0)[:3],
        lambda s, x: x[:3] + held["a"].reshape(2, 2, 3).transpose(1, 0, 2).reshape(4, 3)[:3],
        lambda s, x: x[0] + held["a"][0], lambda s, x: x[0] + held["a"][1],
        lambda s, x: crossed(s, x, held["a"], False), lambda s, x: crossed(s, x, held["a"], True),
    ]
    names = [[recorder.script(lambda s, use=use: use(s, s.accept(ghost((4, 3))))).name for use in uses]
             for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == len(uses)
    rows = [recorder.script(lambda s, i=i: s.accept(ghost((2, 3))) + held["a"][np.array(i)]) for i in ([0, 1], [3, 2])]
    assert rows[0].name == rows[1].name  # indices are inputs


def crossed(s: Any, x: Share, a: Share, other: bool) -> Any:
    p, q = a[np.array([0, 1])], a[np.array([2, 3])]
    return (x[:2] + q, x[2:] + p) if other else (x[:2] + p, x[2:] + q)
