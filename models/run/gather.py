"""The loop of every client: batches texts of similar length, asks for each batch, and puts the answers in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from secformer.models.data.batch import Batch, Row, batches
from secformer.models.run.progress import Progress, part

Ask = Callable[[Batch, Progress], Mapping[str, np.ndarray]]  # a batch's results by name: (N, ...) or (B, ...)


def gather(rows: Sequence[Row], limit: int, by_token: Mapping[str, bool], ask: Ask,
           tell: Progress) -> list[Mapping[str, np.ndarray]]:
    """Each row's own results by name, (T, ...) or (...), in the order of the rows.

    limit     the most positions (texts times longest text) per batch
    by_token  True for results that have one row per token (see `Architecture.results`)
    ask       gets the answers of one batch
    """
    found: list[Mapping[str, np.ndarray]] = [{}] * len(rows)
    chunks = list(batches(rows, limit))
    for number, (places, batch) in enumerate(chunks):
        answers = ask(batch, part(tell, number, len(chunks)))
        for i, place in enumerate(places):
            start, length = batch.starts[i], batch.lengths[i]
            found[place] = {name: np.asarray(values[start : start + length] if by_token[name] else values[i])
                            for name, values in answers.items()}
    return found
