"""What the notebooks show of a run: what each party holds of a text, and what the run cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from secformer import PlainModel, SecureModel
from secformer.models.data.batch import Batch
from secformer.mpc.backend import choose_backend
from secformer.mpc.kernels import kernels_for
from secformer.mpc.meter import Cost
from secformer.mpc.prg import fresh_seed


def seen(model: SecureModel | PlainModel, text: Any) -> None:
    """Prints the first token of a text as a client sends it: its row of the vocabulary, shared between the parties.

    A client of served parties sends the rows as short keys. A party expands its key to one number for each word of the
    vocabulary. Each party's numbers alone are noise; the sums are 0, and 1 at the token's place.
    """
    inputs = model.architecture.inputs
    (row,) = model.tokenizer.rows([text])
    batch, kernels = Batch((row,)), kernels_for(choose_backend("numpy"))
    halves = [np.asarray(inputs.rows(keys, kernels)) for keys in inputs.keys(batch, fresh_seed())]
    place = int(row.ids[0])
    first = max(0, place - 1)
    print(f"{len(row)} tokens; the first is word {place} of {inputs.words}. Its row, from word {first} on:")
    for rank, half in enumerate(halves):
        print(f"  party {rank} sees  ", *(f"{int(word):016x}" for word in half[0, first : first + 3]))
    print("  the sum is    ", *(f"{int(word):16d}" for word in (halves[0] + halves[1])[0, first : first + 3]))


def paid(cost: Cost) -> None:
    """Prints a run's cost, between the parties and from the dealer."""
    print(f"{cost.rounds} rounds, {cost.bytes / 1e6:.2f} MB between the parties, {cost.dealer_bytes / 1e6:.2f} MB from "
          f"the dealer, {cost.seconds + cost.offline_seconds:.2f} s")
