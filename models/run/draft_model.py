"""A small public model that guesses tokens ahead. It runs at the client alone, in plaintext."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.checkpoint import PathLike
from secformer.models.data.inputs import Request
from secformer.models.data.parameters import Parameters, load_weights
from secformer.models.data.shares import PlainTensors
from secformer.models.data.tensors import verify
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.data.tokenizer_files import vocabulary
from secformer.models.families.blocks import Forward
from secformer.models.families.caching import SLOTS
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.trained import plaintext
from secformer.models.run.decoding import Decoding, decoder_of
from secformer.models.run.local_decoding import PlainDecoding
from secformer.models.run.progress import Progress
from secformer.models.run.turns import Turns
from secformer.mpc.errors import ModelError
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.sessions.plain import PlainSession


class DraftModel:
    """A drafter (see `models/generation/drafting`) that goes on with the text greedily, by a model of its own.

    The model is an ordinary folder of a causal language model. It runs in this process, in float64 and with exact
    functions; nothing of it is shared. It keeps the keys and values of the text that it was asked for last, as far as
    the next one begins with the same tokens. Several threads may use it: they take turns.

    longest  tokens that it can read; it guesses nothing that would stand behind them
    words    it reads ids below this number

    Raises ModelError for a folder that cannot be used, or whose model does not tell the next token, and RangeError for
    weights that are not finite.
    """

    def __init__(self, folder: PathLike):
        self._folder = ModelFolder(folder)
        self._decoder, checkpoint = decoder_of(self._folder.architecture), self._folder.checkpoint
        self._vocabulary = vocabulary(self._folder.path)
        self._recipe = plaintext(self._decoder.spec)
        verify(self._decoder.layout(WORD_BITS), checkpoint, math.inf)
        self._session, self._turns = PlainSession(strict=False), Turns()
        self._parameters = load_weights(self._session, PlainTensors(self._decoder.layout(None), checkpoint))
        self.longest, self.words = self._decoder.spec.longest, self._decoder.spec.vocab
        self._text = self._begun()

    def require(self, tokenizer: Tokenizer) -> None:
        """Raises ModelError where an id means another token here than to the tokenizer of the model that verifies.
        Either may have further tokens."""
        mine, theirs = self._vocabulary, vocabulary(tokenizer.folder)
        same = {i for token, i in mine.items() if theirs.get(token) == i}
        if other := sorted({*mine.values()} & {*theirs.values()} - same):
            here, there = (next(token for token, i in each.items() if i == other[0]) for each in (mine, theirs))
            raise ModelError(f"the draft model in {self._folder.path} has another vocabulary than the model: the id "
                             f"{other[0]} is {here!r} there, and {there!r} in {tokenizer.folder} ({len(other)} ids "
                             f"differ). Give a draft model with the same tokenizer, usually a smaller one of the same "
                             f"family")

    def draft(self, ids: Sequence[int], most: int) -> list[int]:
        """The `most` tokens that this model continues `ids` with, greedily; none where it cannot read as many."""
        if not self._reads(ids, most):
            return []
        with self._turns.take():
            if self._text.ended or self._text.timeline.used > 2 * self._text.length + SLOTS:
                self._text = self._begun()  # slots of tokens that were taken back stay used up, and cost time
            found = [_likeliest(self._text.become(ids).logits)]
            while len(found) < most:
                found.append(_likeliest(self._text.take(found[-1:]).logits))
        return found

    def advice(self, ids: Sequence[int], new: int) -> list[str]:
        """Notes on what it cannot draft of a text that begins with `ids`, and may get `new` more tokens."""
        if max(ids) >= self.words:
            return [f"the prompt has a token that the draft model has no word for, so it drafts nothing: it has words "
                    f"for the ids 0..{self.words - 1}"]
        if len(ids) + new > self.longest:
            return [f"the draft model reads {self.longest} tokens, and drafts nothing behind them; this text may have "
                    f"{len(ids) + new}"]
        return []

    def _reads(self, ids: Sequence[int], most: int) -> bool:
        """Whether this model can read the tokens, and all that it would add but the last one."""
        return len(ids) + most <= self.longest + 1 and max(ids) < self.words

    def _begun(self) -> Decoding:
        return PlainDecoding(self._decoder, self._session, self._turns, self._parameters, self._prepared, self._request,
                             guarded=False)

    def _prepared(self, batch: Batch, parameters: Parameters, tell: Progress) -> Forward:
        return Forward(batch, parameters, self._recipe, lambda site: {})

    def _request(self, batch: Batch) -> Request:
        return self._decoder.inputs.client_request(batch, lambda: self._folder.embeddings(batch))


def _likeliest(logits: np.ndarray) -> int:
    """The token that follows the last one, of logits (m, V)."""
    return int(np.argmax(logits[-1]))
