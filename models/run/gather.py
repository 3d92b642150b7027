"""The loop of every client: batches texts of similar length, asks for the batches, puts the answers in order, and adds
the costs up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from secformer.models.data.batch import Batch, Row, Steps, batches
from secformer.models.families.program import GUARD
from secformer.models.run.progress import Progress, part
from secformer.mpc.meter import Cost

ROUNDS = 64  # tokens that take as long as the rounds of a batch do on a LAN, about; on a WAN, many more do
Answers = Mapping[str, np.ndarray]  # a batch's results by name, (N, ...) or (B, ...)
Ask = Callable[[Batch, Progress], tuple[Answers, Cost]]  # and what they cost
Events = queue.SimpleQueue[tuple[int, str, int, int] | BaseException | None]  # a batch's number and its progress


def gather(rows: Sequence[Row], limit: int, by_token: Mapping[str, bool], asks: Sequence[Ask], tell: Progress,
           give_up: Callable[[], None] = lambda: None, steps: Steps | None = None) -> tuple[list[Answers], Cost]:
    """Each row's own results by name, (T, ...) or (...), in the order of the rows, and the cost of all batches.

    limit     the most positions (texts times longest text) per batch
    by_token  True for results that have one row per token (see `Architecture.results`)
    asks      each gets the answers of one batch at a time. If there are several, they are called in threads of their
              own at the same time; then there are at least as many batches, if there are as many texts
    steps     lengths that texts are filled up to; results of fillers are left out
    give_up   makes running calls of `asks` fail: it is called when one has failed, or on Ctrl-C

    The cost of asks that run at the same time is that of parties that do: bytes add up; of seconds and rounds, those of
    the ask that has the most count. `tell` is called in this thread. Raises what an ask, or `tell`, raises.
    """
    by_token = {GUARD: False, **by_token}
    found: list[Answers] = [{}] * len(rows)
    chunks = list(batches(rows, limit, len(asks), steps))
    run = _one_by_one if len(asks) == 1 or len(chunks) == 1 else _at_once
    answered, total = run([batch for _, batch in chunks], asks, tell, give_up)
    for (places, batch), answers in zip(chunks, answered, strict=True):
        for i, place in enumerate(places):
            start, length = batch.starts[i], batch.own_lengths[i]
            found[place] = {name: np.asarray(values[start : start + length] if by_token[name] else values[i])
                            for name, values in answers.items()}
    return found, total


def _one_by_one(chunks: Sequence[Batch], asks: Sequence[Ask], tell: Progress,
                give_up: Callable[[], None]) -> tuple[list[Answers], Cost]:
    answered, costs = [], []
    for number, batch in enumerate(chunks):
        answers, cost = asks[0](batch, part(tell, number, len(chunks)))
        answered.append(answers)
        costs.append(cost)
    return answered, sum(costs[1:], costs[0]) if costs else Cost()


def _at_once(chunks: Sequence[Batch], asks: Sequence[Ask], tell: Progress,
             give_up: Callable[[], None]) -> tuple[list[Answers], Cost]:
    """Every ask gets its batches beforehand, so that the cost of a call does not depend on how fast each was."""
    events: Events = queue.SimpleQueue()
    answered: list[Answers] = [{}] * len(chunks)
    stop = threading.Event()

    def work(ask: Ask, numbers: Sequence[int]) -> Cost:
        total = Cost()
        try:
            for number in numbers:
                if stop.is_set():
                    break
                answered[number], cost = ask(chunks[number], _into(events, number))
                total += cost
            events.put(None)
        except BaseException as error:  # raised again by the thread that called
            events.put(error)
        return total

    with ThreadPoolExecutor(len(asks), thread_name_prefix="batches") as threads:
        running = [threads.submit(work, ask, numbers)
                   for ask, numbers in zip(asks, dealt([b.tokens + ROUNDS for b in chunks], len(asks)), strict=True)]
        try:
            _follow(events, len(asks), len(chunks), tell)
        except BaseException:
            stop.set()
            give_up()
            raise
    total = running[0].result()
    for each in running[1:]:
        total = total.merged(each.result(), parallel=True)
    return answered, total


def _into(events: Events, number: int) -> Progress:
    return lambda what, done, total: events.put((number, what, done, total))


def _follow(events: Events, asks: int, chunks: int, tell: Progress) -> None:
    """Reports progress until all asks have ended. Raises the first error of one."""
    done: dict[int, int] = {}
    while asks:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        if event is None:
            asks -= 1
        else:
            number, what, some, total = event
            done[number] = some
            tell(what, sum(done.values()), chunks * total)


def dealt(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """The numbers 0, 1, ... of things of these sizes, dealt to hands: the largest first, each to the hand that has the
    least so far."""
    found: list[list[int]] = [[] for _ in range(hands)]
    held = [0] * hands
    for number in sorted(range(len(sizes)), key=lambda k: (-sizes[k], k)):
        least = held.index(min(held))
        found[least].append(number)
        held[least] += sizes[number]
    return found
