"""A batch as two halves of a request, and the parties' two halves of an answer as one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.inputs import TokenInputs
from secformer.models.run.public import PublicModel
from secformer.models.run.tables import Tables
from secformer.mpc.errors import ProtocolError
from secformer.mpc.fixed import decode
from secformer.mpc.kernels import Kernels
from secformer.mpc.prg import fresh_seed
from secformer.roles.messages import ID_DIGITS, Answer, Half, StepRequest


def fresh_id() -> str:
    """A name that nobody can guess, for a request or a session."""
    return fresh_seed().hex()[:ID_DIGITS]


def halves_of(public: PublicModel, tables: Tables | None, batch: Batch, request: str,
              step: StepRequest | None = None, trace: str = "") -> tuple[Half, Half]:
    """Party 0's half and party 1's: keys of one-hot rows; or, with the `tables` that clients hold, words and a seed.

    trace  the id of the trace that the request belongs to
    """
    def half(**secret: Any) -> Half:
        return Half(request, public.digest, batch.lengths, batch.mask, step=step, trace=trace, **secret)

    seed = fresh_seed()
    if tables is None:
        first, second = (half(keys=keys) for keys in public.inputs.keys(batch, seed))
        return first, second
    mine, _ = public.inputs.client_halves(batch, tables.sums(batch), public.fixed.frac, seed)
    return half(words=mine.words()), half(seed=seed)


def words_of(half: Half, batch: Batch, inputs: TokenInputs, kernels: Kernels) -> Any:
    """A party's shares of the rows that a half of a request is about."""
    if half.keys is not None:
        return inputs.rows(half.keys, kernels)
    return np.asarray(half.words) if half.words is not None else inputs.expanded_sums(batch, half.seed or b"")


def joined(answers: tuple[Answer, Answer], names: Collection[str], frac: int) -> dict[str, np.ndarray]:
    """The values of results of these names. Raises ProtocolError where the halves do not fit."""
    first, second = answers
    for found in (set(first.words), set(second.words)):
        if found != set(names):
            raise ProtocolError(f"a party answered with {sorted(found)}, but the model has {sorted(names)}; do all "
                                f"roles run the same version?")
    values = {}
    for name, words in first.words.items():
        if words.shape != second.words[name].shape:
            raise ProtocolError(f"the halves of {name} have shapes {words.shape} and {second.words[name].shape}; do "
                                f"all roles run the same version?")
        values[name] = decode(words + second.words[name], frac)
    return values
