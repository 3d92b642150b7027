"""The program of one batch, run by every session: accept the client's input, compute, reveal to the client.

This is the only file that reveals results. It reveals them to the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from secformer.models.data.inputs import Request
from secformer.models.families.architecture import Architecture
from secformer.models.families.blocks import Forward, Sites
from secformer.mpc.guarding import Guarded
from secformer.mpc.rounds import Beside
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site

CHECK = "one-hot"  # the result for the parties alone: words that are 0 if all rows of a client passed
Answer = Callable[[Session, Share, Forward], dict[str, Share]]  # like `Architecture.answer`
Results = dict[str, Any]  # by name: words with the session's fractional bits (in the twin: values)
GUARD = "guard"  # the result that says which texts cannot be trusted: (B, 1) words, 0 where all values passed


def infer(s: Session, architecture: Architecture, request: Request, f: Forward, names: Sequence[str],
          guard: Guarded | None = None, answer: Answer | None = None) -> Results:
    """Runs a request. Returns the results of these names, as the client gets them from this session.

    With GUARD among the names, values are checked on the way; `guard` takes what is found (see `mpc/guarding`).
    `answer` computes the results, by default the architecture's own. Where the request's rows are checked, CHECK is
    among the results: nobody may give a client the others before its words are known to be 0.
    """
    answer = answer or architecture.answer
    if GUARD not in names:
        return _answers(s, architecture, request, f, names, answer)
    guard = guard or Guarded()
    with s.guarding(f.batch.owners, f.batch.size, guard):
        out = _answers(s, architecture, request, f, [name for name in names if name != GUARD], answer)
    return out | {GUARD: guard.words}


def _answers(s: Session, architecture: Architecture, request: Request, f: Forward, names: Sequence[str],
             answer: Answer) -> Results:
    words = request.words()
    with _checking(s, words, request) as check:
        with s.scope("embedding"):
            x = s.accept(words, frac=0 if request.private else None, width=request.width, operand=request.private)
            if request.private:
                x = architecture.embed(s, x, f)
        out = answer(s, x, replace(f, at=_named(s, f.at)))
        s.site = ""
        with s.scope("reveal"):
            kept = s.lift(*(_checked(s, out[name], name) for name in names))
            found: Results = {name: s.reveal(x, CLIENT) for name, x in zip(names, kept, strict=True)}
    return found | ({CHECK: check.result} if check else {})


@contextmanager
def _checking(s: Session, words: Any, request: Request) -> Iterator[Beside | None]:
    """Checks the rows of a request beside the block; None where they are not checked."""
    if not request.spans:
        yield None
        return
    with s.beside(s.unit_rows(s.accept(words, frac=0, operand=True), request.spans)) as check:
        yield check


def _named(s: Session, at: Sites) -> Sites:
    """The ranges of `at`; what is checked next happens at the site that was asked for last."""

    def told(site: str) -> Site:
        s.site = site
        return at(site)

    return told


def _checked(s: Session, x: Share, name: str) -> Share:
    """A result whose promise is checked when it is lifted; one that is whole already was made of checked values."""
    holds = 2.0**x.magnitude
    return s.checked(x, -holds, holds, name) if s.due(x) else x


def behind_embedding(s: Session, architecture: Architecture, sums: Any, f: Forward) -> dict[str, Share]:
    """Every result of embedding sums (N, C), or of their shape: to measure ranges, to rehearse and to record plans."""
    return architecture.answer(s, s.accept(sums), f)
