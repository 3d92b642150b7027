"""Steps of texts that grow at a served party: their program, the plan of a shape of steps, and what a party keeps.

The plan of a step depends on its shape alone (see `Turn`), and is recorded once, for a text that begins with it. What
else a step computes with follows from where tokens stand, which parties compare before it, and from public numbers,
which they compare when they link (`Decoder.numbers`).
"""

from __future__ import annotations

import numpy as np

from secformer.models.data.batch import Batch, blind_batch
from secformer.models.data.inputs import Request
from secformer.models.data.parameters import Parameters
from secformer.models.families.blocks import Forward
from secformer.models.families.caching import Pair, Timeline, caches
from secformer.models.families.decoder import Decoder
from secformer.models.families.program import Results, infer
from secformer.models.run.decoding import Turn, decoder_of
from secformer.models.run.public import PublicModel
from secformer.mpc.errors import InputError
from secformer.mpc.session import Session

Shape = tuple[int, int, int]  # new tokens, slots of the caches, logits that are asked for
WORD = 8                      # bytes


class PartyText:
    """A text that grows, as one party keeps it.

    timeline  where its tokens stand
    caches    keys and values, by layer, in the session that ran its last step
    """

    def __init__(self, s: Session, decoder: Decoder, parameters: Parameters):
        self.decoder, self.timeline = decoder, Timeline(len(decoder.spec.prefix))
        self.caches = caches(s, decoder, parameters)

    def shape(self, new: int, keep: int, last: int) -> Shape:
        """The shape of a step of so many new tokens behind the first `keep`. Raises InputError where the text cannot go
        back so far, or would have more tokens than the model's context."""
        first, length, longest = self.timeline.first, self.timeline.length, self.decoder.spec.longest
        if not first <= keep <= length or new < 1 or last not in (1, new) or keep + new > longest:
            raise InputError(f"a step takes 1 or more tokens, and gives the logits of the last one or of all, behind "
                             f"{first} to {length} tokens here, to at most {longest} tokens; got {new} for {last} "
                             f"behind {keep}")
        return new, self.timeline.capacity(new), last

    def begun(self, shape: Shape, keep: int) -> Turn:
        """The step of that shape: its tokens have their places from now on."""
        new, capacity, last = shape
        self.timeline.back(keep)
        return Turn(self.decoder, self.timeline, self.timeline.take(new), capacity, last)

    def taken(self, s: Session) -> list[Pair]:
        """The caches in another session of the same party. No other may use them meanwhile."""
        for pair in self.caches:
            for cache in pair:
                cache.session = s
        return self.caches


def first_turn(decoder: Decoder, shape: Shape) -> Turn:
    """A step of that shape with which a text begins: it stands for all others."""
    timeline, (new, capacity, last) = Timeline(len(decoder.spec.prefix)), shape
    return Turn(decoder, timeline, timeline.take(new), capacity, last)


def step(public: PublicModel, s: Session, parameters: Parameters, turn: Turn, pairs: list[Pair],
         words: np.ndarray | None) -> Results:
    """A step in a session, on its share of the new tokens; None: on shapes alone."""
    batch = new_batch(len(turn.positions))
    forward = Forward(batch, parameters, public.recipe, public.profile)
    return infer(s, turn.decoder, request_of(public, batch, words), forward, public.step_names, None,
                 turn.answer(pairs))


def first_step(public: PublicModel, s: Session, parameters: Parameters, shape: Shape) -> Results:
    """`first_turn` on shapes alone, in a recorder."""
    turn = first_turn(decoder_of(public.architecture), shape)
    return step(public, s, parameters, turn, caches(s, turn.decoder, parameters), None)


def new_batch(new: int) -> Batch:
    """New tokens of one text, as a party knows them."""
    return blind_batch(np.array([new]), np.ones((1, new), dtype=bool))


def request_of(public: PublicModel, batch: Batch, words: np.ndarray | None) -> Request:
    """A batch's input, or its shape alone."""
    if words is None:
        return public.request(batch, lambda: np.zeros(0, dtype=np.uint64)).ghost()
    return public.request(batch, lambda: words)


def slot_bytes(decoder: Decoder) -> int:
    """Bytes that a party keeps for each slot of a text: of a key and a value in each layer, two words of each entry."""
    spec = decoder.spec
    return 2 * 2 * WORD * spec.layers * spec.groups * spec.size
