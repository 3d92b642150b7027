"""Clients that send rows which no text has: both parties refuse them, give nothing of an answer, and go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the served roles need the extra `serve`")

from engines_lab import Engines
from roles_lab import right

from secformer.models.data.batch import Batch
from secformer.mpc.errors import InputError, ProtocolError
from secformer.roles.halves import fresh_id, halves_of
from secformer.roles.messages import Answer, Half

TEXT = "Dull."
Pair = tuple[Half, Half]
Change = Callable[[Pair], Pair]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with Engines(tmp_path_factory.mktemp("engines")) as engines:
        yield engines


def batch_of(up: Engines) -> Batch:
    with up.client() as client:
        return Batch(tuple(client.tokenizer.read([TEXT], truncation=False).rows))


def honest(up: Engines) -> Pair:
    return halves_of(up.engines[0].public, None, batch_of(up), fresh_id())


def both(up: Engines, halves: Pair) -> list[BaseException | None]:
    """What each party says, and that neither gives an answer beside it."""
    futures: list[Future[Answer]] = [jobs.submit(half, "client", 60.0)
                                     for jobs, half in zip(up.jobs, halves, strict=True)]
    return [future.exception(120) for future in futures]


def points(half: Half, **parts: Any) -> Half:
    assert half.keys is not None
    return replace(half, keys=replace(half.keys, points=replace(half.keys.points, **parts)))


def final(at: int, *changes: tuple[int, int]) -> Change:
    """Adds words to the leaf of token `at`, alike in both halves: to entries counted from that with the 1."""

    def change(halves: Pair) -> Pair:
        assert halves[0].keys is not None
        words = halves[0].keys.points.finals.copy()
        for entry, more in changes:
            words[at, entry : entry + 1] += np.uint64(more % 2**64)
        return points(halves[0], finals=words), points(halves[1], finals=words)

    return change


def segment(at: int, *changes: tuple[int, int]) -> Change:
    def change(halves: Pair) -> Pair:
        assert halves[0].keys is not None
        words = halves[0].keys.segments.copy()
        for entry, more in changes:
            words[at, entry : entry + 1] += np.uint64(more % 2**64)
        return replace(halves[0], keys=replace(halves[0].keys, segments=words)), halves[1]

    return change


def zeros(halves: Pair) -> Pair:
    """Equal seeds: both rows are the same before signs, so they cancel."""
    assert halves[0].keys is not None and halves[1].keys is not None
    wrong = halves[0].keys.points.seeds.copy()
    wrong[0] = halves[1].keys.points.seeds[0]
    return points(halves[0], seeds=wrong), halves[1]


def wrong_way_round(halves: Pair) -> Pair:
    assert halves[0].keys is not None and halves[1].keys is not None
    a, b = (half.keys.points.seeds for half in halves if half.keys is not None)
    return points(halves[0], seeds=b), points(halves[1], seeds=a)


def wrong_turns(halves: Pair) -> Pair:
    assert halves[0].keys is not None
    turns = halves[0].keys.points.turns ^ 1
    return points(halves[0], turns=turns), points(halves[1], turns=turns)


BAD: dict[str, Change] = {
    "one and one more": final(0, (3, 1)),
    "one more and one less": final(0, (3, 1), (4, -1)),
    "large words": final(1, (0, 1 << 40), (1, -(1 << 40))),
    "the least that the table reads": final(1, (0, 1 << 23), (1, -(1 << 23))),
    "two segments": segment(0, (1, 1)),
    "minus one and two segments": segment(0, (0, 1), (1, -1)),
    "equal seeds": zeros,
    "each other's seeds": wrong_way_round,
    "corrections that do not fit": wrong_turns,
}


@pytest.mark.parametrize("name", BAD)
def test_rows_that_are_not_one_hot_are_refused_by_both_parties(up: Engines, name: str) -> None:
    up.ready()
    links = [engine._link for engine in up.engines]
    for problem in both(up, BAD[name](honest(up))):
        assert isinstance(problem, InputError) and "are not one-hot" in str(problem)
    assert [engine._link for engine in up.engines] == links, "only the client is at fault, so the link stays"


def test_honest_rows_are_answered_before_and_after(up: Engines) -> None:
    up.ready()
    with up.client() as client:
        for _ in range(3):
            right(client.infer([TEXT]), [TEXT])
            assert all(isinstance(problem, InputError) for problem in both(up, BAD["one and one more"](honest(up))))


def other_length(half: Half) -> Half:
    lengths = half.lengths.copy()
    lengths[0] -= 1
    return replace(half, lengths=lengths, mask=half.mask[:, :-1])


def other_mask(half: Half) -> Half:
    mask = half.mask.copy()
    mask[0, -1] = False
    return replace(half, mask=mask)


def other_salt(half: Half) -> Half:
    assert half.keys is not None
    return points(half, salt=half.keys.points.salt + np.uint32(1))


@pytest.mark.parametrize("change", [other_length, other_mask, other_salt])
@pytest.mark.parametrize("rank", [0, 1])
def test_halves_that_differ_in_what_is_public_never_run(up: Engines, rank: int, change: Callable[[Half], Half]) -> None:
    up.ready()
    first, second = honest(up)
    halves = (change(first), second) if rank == 0 else (first, change(second))
    for problem in both(up, halves):
        assert isinstance(problem, ProtocolError) and "the halves of the request differ" in str(problem)


def test_keys_of_two_requests_never_run(up: Engines) -> None:
    up.ready()
    public, batch, request = up.engines[0].public, batch_of(up), fresh_id()
    first, second = (halves_of(public, None, batch, request)[rank] for rank in (0, 1))
    for problem in both(up, (first, second)):
        assert isinstance(problem, ProtocolError) and "the halves of the request differ" in str(problem)
