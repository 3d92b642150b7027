"""The loop of every client: batches texts of similar length, asks for each batch, puts the answers in order, and adds
the costs up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from secformer.models.data.batch import Batch, Row, batches
from secformer.models.families.program import GUARD
from secformer.models.run.progress import Progress, part
from secformer.mpc.meter import Cost

# a batch's results by name, (N, ...) or (B, ...), and what they cost
Ask = Callable[[Batch, Progress], tuple[Mapping[str, np.ndarray], Cost]]


def gather(rows: Sequence[Row], limit: int, by_token: Mapping[str, bool], ask: Ask,
           tell: Progress) -> tuple[list[Mapping[str, np.ndarray]], Cost]:
    """Each row's own results by name, (T, ...) or (...), in the order of the rows, and the cost of all batches.

    limit     the most positions (texts times longest text) per batch
    by_token  True for results that have one row per token (see `Architecture.results`)
    ask       gets the answers of one batch
    """
    by_token = {GUARD: False, **by_token}
    found: list[Mapping[str, np.ndarray]] = [{}] * len(rows)
    chunks, total = list(batches(rows, limit)), Cost()
    for number, (places, batch) in enumerate(chunks):
        answers, cost = ask(batch, part(tell, number, len(chunks)))
        total += cost
        for i, place in enumerate(places):
            start, length = batch.starts[i], batch.lengths[i]
            found[place] = {name: np.asarray(values[start : start + length] if by_token[name] else values[i])
                            for name, values in answers.items()}
    return found, total
