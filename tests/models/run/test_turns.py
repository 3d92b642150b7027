"""Several threads on one model: right answers, clean errors, closing, and callbacks that would wait for themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from runs_lab import CPU, TEXTS, TIGHT, close

from secformer.models.run.local import PlainModel, SecureModel, twin
from secformer.models.run.progress import silent
from secformer.models.run.turns import Turns
from secformer.mpc.errors import InputError, SettingsError

QUESTIONS = [TEXTS[i % 4 : i % 4 + 1 + i % 2] for i in range(8)]


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What jobs return, or raise, in threads that start together."""
    gate = threading.Barrier(len(jobs))

    def job(work: Callable[[], Any]) -> Any:
        gate.wait()
        try:
            return work()
        except BaseException as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(job, jobs))


@pytest.mark.parametrize("kind", ["secure", "plain", "not yet shared"])
def test_every_thread_gets_its_answer(kind: str, encoder: Path) -> None:
    if kind == "plain":
        model: Any = PlainModel.from_pretrained(encoder)
    elif kind == "secure":
        model = SecureModel.from_pretrained(encoder, **CPU)
    else:
        from secformer.models.families.folder import ModelFolder
        from secformer.models.run.options import Settings

        model = SecureModel(ModelFolder(encoder), "auto", None, Settings(), "numpy")
    found = at_once(*(lambda q=q: model(q) for q in QUESTIONS))
    for question, out in zip(QUESTIONS, found, strict=True):
        assert not isinstance(out, BaseException), out
        close(out, twin(encoder, question), TIGHT)


def test_errors_and_interrupts_stay_with_their_thread(encoder: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with SecureModel.from_pretrained(encoder, **CPU) as model:
        bad, stopped, *good = at_once(lambda: model("a\ud800"), lambda: model("cat", interrupt),
                                      *(lambda: model("the dog ran") for _ in range(3)))
        assert isinstance(bad, InputError) and isinstance(stopped, KeyboardInterrupt)
        for out in [*good, model("the dog ran")]:
            assert not isinstance(out, BaseException), out
            close(out, twin(encoder, "the dog ran"), TIGHT)


def test_closing_waits_for_the_running_call_and_refuses_the_next(encoder: Path) -> None:
    running, answers = threading.Event(), []
    model = SecureModel.from_pretrained(encoder, **CPU)
    first = threading.Thread(target=lambda: answers.append(model("the cat sat", lambda *_: running.set())))
    first.start()
    assert running.wait(60)
    model.close()
    first.join()
    close(answers[0], twin(encoder, "the cat sat"), TIGHT)
    assert model.world is None
    for refused in at_once(lambda: model("cat"), lambda: model("dog")):
        assert isinstance(refused, SettingsError) and "closed" in str(refused)


@pytest.mark.parametrize("secure", [True, False])
def test_a_callback_that_uses_its_model_is_refused(secure: bool, encoder: Path) -> None:
    """It would wait for the call that waits for it."""
    model: Any = SecureModel.from_pretrained(encoder, **CPU) if secure else PlainModel.from_pretrained(encoder)
    for use in (lambda *_: model("dog"), *([lambda *_: model.close()] if secure else [])):
        with pytest.raises(SettingsError, match="a progress callback must not use the model that reports to it"):
            model("cat", use)
    close(model("cat"), twin(encoder, "cat"), TIGHT)


def test_turns_end_with_errors_and_callbacks_with_their_calls() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.take():
        raise ZeroDivisionError
    inside: list[bool] = []

    def tell(what: str, done: int, total: int) -> None:
        try:
            with turns.take():
                inside.append(True)
        except SettingsError:
            inside.append(False)
        raise OSError(what)

    with pytest.raises(OSError, match="step"):
        turns.telling(tell)("step", 0, 1)
    assert inside == [False] and turns.telling(silent) is silent
    assert at_once(lambda: turns.take().__enter__()) == [None]  # nobody holds it after the error
