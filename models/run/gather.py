"""The loop of every client: texts in batches of similar length, each batch's answers cut up and put back in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from secformer.models.data.batch import Batch, Row, batches
from secformer.models.run.progress import Progress, part

Ask = Callable[[Batch, Progress], Mapping[str, np.ndarray]]  # a batch's results by name: (N, ...) or (B, ...)


def gather(rows: Sequence[Row], limit: int, by_token: Mapping[str, bool], ask: Ask,
           tell: Progress) -> list[Mapping[str, np.ndarray]]:
    """Each row's own results by name, (T, ...) or (...), in the order of the rows.

    limit     most positions (texts times longest text) that are asked for together
    by_token  which results have one row for each token (see `Architecture.results`)
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
