"""Texts that are generated for callers, at one cell each."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence

from secformer.gateway.cells import Cell
from secformer.gateway.desk import Desk
from secformer.gateway.refusals import Gone
from secformer.models.run.generate import Generated, Options
from secformer.models.run.guard import note
from secformer.mpc.errors import ProtocolError, Untrusted


def write(desk: Desk, prompt: Sequence[int], options: Options, left: threading.Event, *,
          whole: bool) -> Generator[str, None, Generated]:
    """Pieces of the text behind a prompt of token ids, and in the end all of it. With `whole`, there are no pieces.

    A cell that fails before the first piece was given leaves the text to another one. Where a step has left its range,
    nothing of it is given.

    left  is set when nobody waits for the text any more: then it ends, at the parties, too

    Raises as `Generates.generate`; Untrusted; Closing; Gone after `left`.
    """
    tried: set[Cell] = set()
    while True:
        with desk.place(tried, left) as cell:
            given = False
            try:
                with cell.model.generate({"input_ids": list(prompt)}, stream=True, **options) as running:
                    for piece in running:
                        desk.served(cell)
                        if breaches := running.result.breaches:
                            raise Untrusted(note(None, breaches))
                        if left.is_set():
                            raise Gone
                        if piece and not whole:
                            given = True
                            yield piece
                return running.result
            except ProtocolError as error:
                desk.failed(cell, error)
                tried.add(cell)
                if given or not desk.untried(tried):
                    raise


def written(desk: Desk, prompt: Sequence[int], options: Options, left: threading.Event) -> Generated:
    """The whole text. Raises as `write`."""
    running = write(desk, prompt, options, left, whole=True)
    while True:
        try:
            next(running)
        except StopIteration as end:
            found: Generated = end.value
            return found
