"""Theft: somebody has recorded what a request opened, and takes the files of a party and of the dealer afterwards.

The recording is all that passed on the request's connection, and what both parties know of the run: its name and its
plan. The first product of a request opens its rows x, as x - a: each is 1 in the columns of its token and its segment.
Whoever knows the two seeds of the run knows a. The weights are opened in the same way, under masks that stand for an
epoch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mpc_lab import kernels_named

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.dealer.products import MatMul
from secformer.mpc.dealer.source import Source
from secformer.mpc.errors import ReusedRandomness
from secformer.mpc.meter import Meter
from secformer.mpc.ops.coin import COIN
from secformer.roles.dealing import WEIGHTS
from secformer.roles.engine import Engine
from secformer.roles.epochs import Epoch, epoch_of
from secformer.roles.slots import Work

MASK = "mask0"  # of a product's left operand
MASK_OF_WEIGHT = "mask"


@dataclass
class Recorded:
    """A request as party 0 saw it: what its run was, and the messages in both directions."""

    space: str = ""
    serial: int = -1
    name: str = ""
    plan: Plan | None = None
    messages: list[bytes] = field(default_factory=list)


def recorded(engine: Engine, channel: Any) -> Recorded:
    """Records the next request that this engine runs on this connection."""
    found, begin, send, receive = Recorded(), engine.begin, channel.send, channel.receive

    def began(work: Work) -> None:
        found.space, found.serial, found.name, found.plan = (work.taken.space, work.taken.serial, work.key.name,
                                                             work.plan)
        begin(work)

    def sent(tag: Any, payload: Any) -> None:
        found.messages.append(np.asarray(payload).tobytes())
        send(tag, payload)

    def received(tag: Any, nbytes: int) -> Any:
        payload = receive(tag, nbytes)
        found.messages.append(np.asarray(payload).tobytes())
        return payload

    engine.begin, channel.send, channel.receive = began, sent, received  # type: ignore[method-assign]
    return found


def stolen(state: Path) -> Epoch:
    """What the file of an epoch in a role's state folder holds."""
    (file,) = state.glob("epoch-*.json")
    return epoch_of(json.loads(file.read_text()))


def seeds_of(epochs: list[Epoch], space: str, serial: int, rank: int) -> Iterator[bytes]:
    """All that stolen files hold which may be a party's seed of a run: the seed of its serial, if there is one, and
    every key beside it."""
    for epoch in epochs:
        if rank not in epoch.seeds:
            continue
        seeds = epoch.runs[space][rank]
        with suppress(ReusedRandomness):
            yield seeds.take(serial)
        yield epoch.seeds[rank]
        for kept in epoch.runs.values():
            yield from kept[rank]._keys.values()


def opened(seen: Recorded, pair: tuple[bytes, bytes]) -> np.ndarray | None:
    """The rows of ones and zeros, if these are the seeds of the run; else None."""
    assert seen.plan is not None
    kernels, place = kernels_named("numpy"), next(i for i, k in enumerate(seen.plan.kinds) if isinstance(k, MatMul))
    kind = seen.plan.kinds[place]
    assert isinstance(kind, MatMul)
    mask = next(f for f in kind.fields() if f.name == MASK)
    size = mask.count * mask.bits // 8
    both = [m[-size:] for m in seen.messages if len(m) == COIN.opened + size][:2]  # behind the coin of the rows' check
    words = sum(kernels.unpack(np.frombuffer(m, np.uint8), mask.count, mask.bits) for m in both)
    for seed in pair:
        source = Source(seed, seen.name, seen.plan, None, kernels, Meter())
        material = [source.take(k) for k in seen.plan.kinds[: place + 1]][-1]
        words = words + material.draw(MASK)
    x: np.ndarray = (words & np.uint64((1 << mask.bits) - 1)).reshape(kind.shapes[0])
    return x if x.max() <= 1 else None


def tried(seen: Recorded, epochs: list[Epoch]) -> np.ndarray | None:
    """The attack: every pair of seeds that the stolen files hold."""
    firsts, seconds = (list(dict.fromkeys(seeds_of(epochs, seen.space, seen.serial, rank))) for rank in (0, 1))
    for pair in ((a, b) for a in firsts for b in seconds):
        if (x := opened(seen, pair)) is not None:
            return x
    return None


# ---- the weights -----------------------------------------------------------------------------------------------------


def recorded_opening(engine: Engine) -> list[bytes]:
    """What party 0 sends and gets when it opens the weights next: a message in each direction for each of them."""
    messages: list[bytes] = []
    begin = engine._begin

    def began(slot: int, peer: Any, key: Any, *rest: Any) -> None:
        if key.name == WEIGHTS:
            send, receive = peer.send, peer.receive

            def sent(tag: Any, payload: Any) -> None:
                messages.append(np.asarray(payload).tobytes())
                send(tag, payload)

            def received(tag: Any, nbytes: int) -> Any:
                messages.append(np.asarray(payload := receive(tag, nbytes)).tobytes())
                return payload

            peer.send, peer.receive = sent, received
        begin(slot, peer, key, *rest)

    engine._begin = began  # type: ignore[method-assign]
    return messages


def last_weight(engines: tuple[Engine, ...] | list[Engine]) -> np.ndarray:
    """The words of the weight that is opened last, which only both share files together tell."""
    layout = engines[0].public.layout
    name = [name for name, tensor in layout.items() if tensor.standing][-1]
    words = sum(engine._shares.get(name).astype(np.uint64) for engine in engines)
    return np.asarray(words & np.uint64((1 << layout[name].width) - 1))


def tried_weight(messages: list[bytes], plan: Plan, epochs: list[Epoch], words: np.ndarray) -> bool:
    """The attack on the weight that was opened last: every pair of seeds that the stolen files hold."""
    kernels, kind = kernels_named("numpy"), plan.kinds[-1]
    (mask,) = kind.fields()
    both = sum(kernels.unpack(np.frombuffer(m, np.uint8), mask.count, mask.bits) for m in messages[-2:])
    for pair in ((a, b) for a in _all_keys(epochs, 0) for b in _all_keys(epochs, 1)):
        found = both
        for seed in pair:
            source = Source(seed, WEIGHTS, plan, None, kernels, Meter())
            found = found + [source.take(each) for each in plan.kinds][-1].draw(MASK_OF_WEIGHT)
        if np.array_equal(found & np.uint64((1 << mask.bits) - 1), words.reshape(-1)):
            return True
    return False


def _all_keys(epochs: list[Epoch], rank: int) -> list[bytes]:
    """Seeds of weights first, and a few of the keys of runs, which are as good as any other guess."""
    seeds = [epoch.seeds[rank] for epoch in epochs if rank in epoch.seeds]
    keys = [key for epoch in epochs for kept in epoch.runs.values() if rank in kept
            for key in kept[rank]._keys.values()]
    return list(dict.fromkeys([*seeds, *keys[:2]]))
