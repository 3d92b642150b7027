"""The queue before a model's cells: what is joined, who is asked again, and which cell serves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the gateway needs the extra `serve`")

from checkpoints import write_checkpoint
from gateway_lab import Plain, desk, plain
from roles_lab import until

from secformer.gateway.cells import WRITERS, Cell
from secformer.gateway.desk import Desk, desks_of
from secformer.gateway.refusals import AllDrained, Closing, Gone, refusal_of
from secformer.gateway.visits import Visit
from secformer.models.data.tokenizer import Texts
from secformer.models.run.output import SecureOutput
from secformer.mpc.errors import InputError, ModelError, PeerLost, SettingsError, TooLong


class Model(Plain):
    """Waits for `go` in each call, and refuses texts of exactly 4 tokens, as a party might."""

    go: threading.Event
    running: threading.Event

    def __call__(self, texts: Texts, progress: object = False) -> SecureOutput:
        self.running.set()
        assert self.go.wait(60.0)
        if any(len(row) == 4 for row in self._read(texts).rows):
            self.calls = [*getattr(self, "calls", []), len(self._read(texts).rows)]
            raise InputError("a text of 4 tokens")
        return super().__call__(texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def made(folder: Path) -> Callable[[], Model]:
    def model() -> Model:
        found = plain(folder)
        found.__class__ = Model
        assert isinstance(found, Model)
        found.go, found.running, found.calls = threading.Event(), threading.Event(), []
        return found

    return model


@pytest.fixture
def opened() -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def made(*models: Model, **cell: Any) -> Desk:
        desks.append(desk("m", *models, **cell))
        return desks[-1]

    yield made
    for each in desks:
        for cell in each.cells:
            cell.model.go.set()  # type: ignore[attr-defined]
        each.close()


def submitted(at: Desk, *texts: str) -> Future[SecureOutput]:
    return at.submit(at.tokenizer.read(list(texts))).answer


def test_what_waits_is_joined(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    """While the model is busy, requests wait; then as many as fit go into one call, in order, each with its own."""
    model = made()
    at = opened(model, room=20)
    first = submitted(at, "a")
    assert model.running.wait(30.0)
    texts = [("a cat sat", "a"), ("the dog ran",), ("it was a film",), ("a cat ran on the mat",)]
    rest = [submitted(at, *each) for each in texts]  # 5 + 3, 5, 6 and 8 tokens
    model.go.set()
    for future, each in zip((first, *rest), (("a",), *texts), strict=True):
        assert np.abs(future.result(30.0).embeddings - model.embed(list(each))).max() < 1e-9
    assert model.calls[:3] == [1, 4, 1]


def test_a_request_larger_than_the_room_runs_alone(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    model = made()
    model.go.set()
    at = opened(model, room=5)
    big = submitted(at, *["a cat sat"] * 6)
    assert big.result(30.0).embeddings.shape == (6, 12) and model.calls == [6]


def test_a_bad_text_fails_alone(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    model = made()
    at = opened(model)
    first = submitted(at, "a")
    assert model.running.wait(30.0)
    good, bad, other = submitted(at, "a cat sat"), submitted(at, "a cat"), submitted(at, "it was", "a")
    model.go.set()
    assert isinstance(other.exception(30.0), InputError)
    assert isinstance(bad.exception(30.0), InputError)
    assert good.result(30.0).embeddings.shape == (1, 12) and first.result(30.0)
    assert model.calls == [1, 4, 1, 1, 2]


def test_a_caller_that_leaves_is_not_asked_for(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    model = made()
    at = opened(model)
    submitted(at, "a")
    assert model.running.wait(30.0)
    visit, failed = Visit(at), []

    def ask() -> None:
        with pytest.raises(Gone):
            visit.embed("a cat sat")
        failed.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: len(at._waiting) == 1)
    visit.leave()
    thread.join(30.0)
    last = submitted(at, "a dog ran")
    model.go.set()
    assert last.result(30.0) and failed and model.calls == [1, 1]
    with pytest.raises(Gone):
        visit.embed("a")


def test_texts_are_checked_before_they_wait(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    model = made()
    visit = Visit(opened(model))
    with pytest.raises(TooLong, match="text 1 has 34 tokens"):
        visit.embed(["a", "a " * 32])
    assert model.calls == [] and not model.running.is_set()
    cut = Visit(opened(made(), truncation=True))
    for cell in cut._desk.cells:
        cell.model.go.set()  # type: ignore[attr-defined]
    assert cut.embed("a " * 32).shape == (12,) and cut.tokens == 32


def test_cells_share_the_work(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    one, two = made(), made()
    at = opened(one, two, room=3)
    futures = [submitted(at, "a") for _ in range(4)]
    assert one.running.wait(30.0) and two.running.wait(30.0)
    one.go.set()
    two.go.set()
    assert all(future.result(30.0) for future in futures) and len(one.calls) + len(two.calls) == 4


def test_a_failed_cell_rests_while_another_serves(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    bad, good = made(), made()
    bad.broken = PeerLost("gone")
    for model in (bad, good):
        model.go.set()
    at = opened(bad, good, rest=3600.0)
    for _ in range(6):
        assert submitted(at, "a").result(30.0)
    assert len(bad.calls) <= 1 and not at.problem
    good.broken = PeerLost("gone, too")
    with pytest.raises(PeerLost):  # each has tried, also the one that rests
        submitted(at, "a").result(30.0)
    assert at.problem == "m: no cell answers (PeerLost)"
    bad.broken = None
    assert submitted(at, "a").result(30.0) and not at.problem, "the only cell that can serve does not rest"


def test_texts_are_generated_where_fewest_are(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    at, left = opened(made(), made()), threading.Event()
    with at.place((), left) as one, at.place((), left) as two:
        assert one is not two
        with at.place((one,), left) as again:
            assert again is two
    assert not one.writing and not two.writing
    for cell in at.cells:
        cell.writing = WRITERS
    threading.Timer(0.05, left.set).start()
    with pytest.raises(Gone), at.place((), left):
        pass
    at.drain()
    with pytest.raises(Closing), at.place((), threading.Event()):
        pass


def test_a_desk_that_closes(made: Callable[[], Model], opened: Callable[..., Desk]) -> None:
    model = made()
    at = opened(model)
    running = submitted(at, "a")
    assert model.running.wait(30.0)
    waiting = submitted(at, "a cat sat")
    at.drain()
    with pytest.raises(Closing):
        submitted(at, "a")
    assert isinstance(waiting.exception(30.0), Closing)
    model.go.set()
    assert running.result(30.0)
    at.close()
    at.close()
    assert model.closed


def test_cells_of_one_name_hold_one_model(tmp_path: Path, made: Callable[[], Model]) -> None:
    other = plain(write_checkpoint(tmp_path / "other", num_hidden_layers=1))
    with pytest.raises(ModelError, match=r"the cells cell 0 and cell 1 hold different models, .*: architecture: layers:"
                                         r" 2 at cell 0, 1 at cell 1\. Both are named 'm'; name them differently"):
        desk("m", made(), other)
    with pytest.raises(ModelError, match="truncation: false at in process, true at in process"):
        Desk("m", [Cell(made()), Cell(made(), truncation=True)])
    with pytest.raises(SettingsError, match=r"no\.toml"):
        desks_of([("m", tmp_path / "no.toml")])


# ---- drained cells ---------------------------------------------------------------------------------------------------


def test_a_drained_cell_is_left_alone_and_finishes_what_it_has(made: Callable[[], Model],
                                                                opened: Callable[..., Desk]) -> None:
    one, two, drained = made(), made(), set[int]()
    two.go.set()
    at = opened(one, two, drained=drained)
    drained.add(1)
    running = submitted(at, "a")
    assert one.running.wait(30.0)
    drained.add(0)
    drained.discard(1)
    for _ in range(3):
        assert submitted(at, "a").result(30.0)
    one.go.set()
    assert running.result(30.0) and len(one.calls) == 1 and two.calls == [1, 1, 1]
    assert not at.problem
    drained.clear()
    two.broken = PeerLost("gone")
    assert submitted(at, "a").result(30.0) and submitted(at, "a").result(30.0), "it serves again"


def test_with_all_cells_drained_requests_are_refused_in_words(made: Callable[[], Model],
                                                               opened: Callable[..., Desk]) -> None:
    one, two, drained = made(), made(), {0, 1}
    at = opened(one, two, drained=drained)
    with pytest.raises(AllDrained) as error:
        submitted(at, "a")
    refusal = refusal_of(error.value)
    assert refusal.status == 503 and int(refusal.headers["Retry-After"]) >= 1 and "drained" in str(refusal)
    with pytest.raises(AllDrained), at.place((), threading.Event()):
        pass
    assert at.problem == "m: no cell answers (drained)"


def test_requests_that_wait_when_the_last_cell_is_drained(made: Callable[[], Model],
                                                          opened: Callable[..., Desk]) -> None:
    model, other, drained = made(), made(), {1}
    at = opened(model, other, drained=drained)
    running = submitted(at, "a")
    assert model.running.wait(30.0)
    waiting = submitted(at, "a cat sat")
    drained.add(0)
    assert isinstance(waiting.exception(30.0), AllDrained)
    model.go.set()
    assert running.result(30.0)


def test_a_request_whose_only_other_cell_is_drained_fails_as_its_cell_did(made: Callable[[], Model],
                                                                          opened: Callable[..., Desk]) -> None:
    bad, other = made(), made()
    bad.broken = PeerLost("gone")
    bad.go.set()
    at = opened(bad, other, drained={1})
    assert isinstance(submitted(at, "a").exception(30.0), PeerLost) and other.calls == []
