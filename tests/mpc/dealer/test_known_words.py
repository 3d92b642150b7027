"""Known answers: the words that each kind of correlation is cut into, under fixed seeds and a fixed name.

Weight masks stand for as long as an epoch does. If a version cut a keystream otherwise under the same keys, it would
open the same weights under masks that are related, and tell what they are. Keys depend on `prg.FORMAT`. So whoever
changes the words, here or on purpose, raises that first, and writes down the new answers.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from mpc_lab import KERNELS, SEEDS, kernels_named

from secformer.mpc.dealer.comparisons import Less, Relu
from secformer.mpc.dealer.kinds import Coin, ExpMask, Kind, Lift, SeriesMask, WeightMask, Witness
from secformer.mpc.dealer.plan import KINDS, Plan
from secformer.mpc.dealer.products import Hadamard, MatMul, UnknownFactor
from secformer.mpc.dealer.service import Dealer
from secformer.mpc.dealer.source import Source
from secformer.mpc.dealer.thresholds import Empty, Reached
from secformer.mpc.meter import Meter
from secformer.mpc.net.channel import local_pair
from secformer.mpc.prg import FORMAT, Stream, derive

GUARDS = ((2, 5, 90), (10, 300, 20_000))
RUN, CACHE = "ab" * 32, "cd" * 32
RAISE = "the words have changed: raise prg.FORMAT, and then write the new answers down"
KNOWN: list[tuple[tuple[Kind, ...], str]] = [
    ((WeightMask(0, (5, 3), 64),
      MatMul(((4, 5), (5, 3)), (48, 48), ((0, 1, 48),), (None, 0), (GUARDS, ()))), "8d15f62ebdad"),
    ((WeightMask(0, (5, 3), 24),), "d86e29df2c14"),
    ((MatMul(((3, 5), (5, 2)), (48, 24), ((0, 1, 24),), (None, None)),), "dc2952a1b591"),
    ((MatMul(((1, 2, 3, 4), (1, 2, 4, 5)), (48, 48), ((0, 1, 48),), (None, None), (),
             ((), (3, 1, 2, 0, 0))),), "86725f209170"),
    ((Hadamard(((9,), (9,)), (48, 48), ((0, 1, 48), (1, 1, 40)), (None, None), (GUARDS, ()),
               (24, 0)),), "1c0c66c9b2b7"),
    ((Lift(9, 20, 48, GUARDS),), "a928e84210bb"),
    ((SeriesMask(9, 24, 3, 48),), "bc7416a7de36"),
    ((ExpMask(9, 24, 5, 1 << 15, 41),), "732ac446b071"),
    ((Less(9, 17, 48, 2),), "64a87d5bcc67"),
    ((Relu(9, 17, 64),), "fb6376595ccd"),
    ((Reached(9, 8, 4, 3),), "a75f7b733e71"),
    ((Empty(9, 8, 16, 3),), "08dd3d224641"),
    ((Witness(9, 24, GUARDS),), "68673570f618"),
    ((Coin(4),), "44d24ccaf744"),
    ((UnknownFactor(8, 4),), "b4f635d834fe"),
]


def cut(kinds: tuple[Kind, ...], name: str) -> str:
    """A digest of all that both parties draw and all that the dealer sends."""
    kernels, plan, h = kernels_named(name), Plan(kinds), hashlib.sha256()
    near, far = local_pair("the dealer", "party 1", deadline=5.0)
    Dealer(SEEDS, kernels).deal(plan, RUN, near, CACHE)
    sent = [far.receive(tag, nbytes) for tag, nbytes in plan.corrections()]
    for payload in sent:
        h.update(np.ascontiguousarray(payload).tobytes())
    again, feed = local_pair("the dealer", "party 1", deadline=5.0)
    for (tag, _), payload in zip(plan.corrections(), sent, strict=True):
        again.send(tag, payload)
    for seed, corrections in zip(SEEDS, (None, feed), strict=True):
        source = Source(seed, RUN, plan, corrections, kernels, Meter(), CACHE)
        for kind in kinds:
            material = source.take(kind)
            for field in kind.fields():
                h.update(np.ascontiguousarray(material.draw(field.name)).astype("<u8").tobytes())
    return h.hexdigest()[:12]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("kinds", "known"), KNOWN, ids=lambda v: "+".join(type(k).__name__ for k in v)
                         if isinstance(v, tuple) else "")
def test_the_words_are_those_of_this_format(kinds: tuple[Kind, ...], known: str, name: str) -> None:
    assert cut(kinds, name) == known, RAISE


def test_every_kind_has_known_words() -> None:
    assert {type(kind) for kinds, _ in KNOWN for kind in kinds} == set(KINDS.values())


@pytest.mark.parametrize(("bits", "known"), [(1, "6dea9092a145"), (8, "022219c9094b"), (17, "96b9f3120a9f"),
    (24, "de33cf64f750"), (48, "0ba2688ca27c"), (64, "b4130707b293")])
@pytest.mark.parametrize("name", KERNELS)
def test_words_of_every_width(bits: int, known: str, name: str) -> None:
    stream = Stream(SEEDS[0], "known", bits, kernels=kernels_named(name))
    words = [np.asarray(stream.words(count, bits)).astype("<u8").tobytes() for count in (3, 100)]
    assert hashlib.sha256(b"".join(words)).hexdigest()[:12] == known, RAISE


def test_keys() -> None:
    assert FORMAT == "secformer keys 2" and len(FORMAT.encode()) <= 16
    assert derive(bytes(32), "run", RUN, 3, "mask").hex() == (
        "db539251f34ec6101985a56d81012e0d280ee6af18ca8bf0e794a2b3ded93049"), RAISE
    assert derive(bytes(range(32)), "a", 1).hex() == (
        "019067ae94b497fffb678b6b8de53e54a9543c478b0e6dd4f80ffbe5edfe9bb9"), RAISE
