"""Answers of a model: those of `demo`, beside plaintext, and those of `infer` and `query`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.run.output import SecureOutput, unit
from secformer.models.run.tasks import Answer, AnswerSpan, Entities, FilledMasks
from secformer.views.costs import ending
from secformer.views.texts import Refused, Texts, one_line, refused_json, refused_lines, texts_json

ANSWERS = ("labels", "probabilities", "scores", "answers", "logits", "prediction_logits", "seq_relationship_logits",
           "start_logits", "end_logits", "embeddings")  # keys of JSON
LEFT_OUT = "(left out)"  # what stands for the numbers of a text that cannot be trusted


def demo(texts: Texts, secure: SecureOutput | None, plain: SecureOutput | None,
         refused: Sequence[Refused] = ()) -> RenderableType:
    """A row per text, and a line for each text that was left out. Without outputs, those lines alone."""
    if secure is None or plain is None:
        return Group(*refused_lines(refused))
    table = Table()
    table.add_column("text", overflow="fold", max_width=48)
    for name in ("secure", "probability", "plaintext", "probability"):
        table.add_column(name, justify="right" if name == "probability" else "left")
    for i, text in enumerate(texts):
        table.add_row(Text(one_line(text)), *_verdict(secure, i), *_verdict(plain, i))
    heading = Text("Computed on shares, with the plaintext model's answer beside it")
    far = Text(f"largest difference between two probabilities: {_farthest(secure, plain):.1e}")
    return Group(heading, table, far, *refused_lines(refused), *ending(secure))


def demo_json(texts: Texts, secure: SecureOutput | None, plain: SecureOutput | None,
              refused: Sequence[Refused] = ()) -> dict[str, Any]:
    facts: dict[str, Any] = {"texts": texts_json(texts), "refused": refused_json(refused)}
    if secure is None or plain is None:
        return facts
    return facts | {
        "secure": secure.as_dict(),
        "plaintext": {k: v for k, v in plain.as_dict().items() if k in ("labels", "probabilities", "logits")},
        "max_probability_difference": _farthest(secure, plain),
    }


def infer(texts: Texts, out: SecureOutput) -> RenderableType:
    return Group(answer_table(texts, out), *ending(out))


def infer_json(texts: Texts, out: SecureOutput) -> dict[str, Any]:
    return {"texts": texts_json(texts), **out.as_dict()}


def answer_table(texts: Texts, out: SecureOutput) -> Table:
    """A row per text; which columns depends on what the model's head answers with."""
    table = Table()
    table.add_column("text", overflow="fold", max_width=48)
    names, rows = _columns(texts, out)
    if out.trusted is not None and not out.trusted.all():
        names = (*names, "trusted")
        rows = [(*row, "yes" if fine else "no") for row, fine in zip(rows, out.trusted, strict=True)]
    for name in names:
        table.add_column(name, overflow="fold")
    for text, row in zip(texts, rows, strict=True):
        table.add_row(Text(one_line(text)), *map(Text, row))
    return table


def _columns(texts: Texts, out: SecureOutput) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The names of the columns beside the text, and their cells, text by text."""
    if out.answers and (first := next((answer for answer in out.answers if answer is not None), None)) is not None:
        nothing = (LEFT_OUT, *("" for _ in _NAMES[type(first)][1:]))
        return _NAMES[type(first)], [nothing if answer is None else _said(answer) for answer in out.answers]
    if out.start_logits is not None and out.end_logits is not None:
        return ("start token", "end token"), [(str(s.argmax()), str(e.argmax()))
                                              for s, e in zip(out.start_logits, out.end_logits, strict=True)]
    if out.labels is not None and out.probabilities is not None:
        return ("label", "probability"), [_labelled(label, p)
                                          for label, p in zip(out.labels, out.probabilities, strict=True)]
    if out.encoder_only:
        found = out.embeddings
        near = unit(found) @ unit(found)[0]
        return (f"embedding ({found.shape[1]} numbers)", "cosine to the first"), [
            (" ".join(f"{v:+.3f}" for v in e[:4]) + " ...", f"{c:.4f}") for e, c in zip(found, near, strict=True)]
    if out.scores is not None:
        single = np.zeros((len(texts), 1)) if out.logits is None else out.logits
        return ("score", "logit"), [(f"{score:.4f}", _numbers(logit))
                                    for score, logit in zip(out.scores, single, strict=True)]
    logits = out.logits if out.prediction_logits is None else out.prediction_logits
    logits = np.zeros((len(texts), 1)) if logits is None else logits
    if logits.ndim == 2:
        return ("score" if logits.shape[1] == 1 else "scores",), [(_numbers(each),) for each in logits]
    return ("logits", "the first four (--json has all)"), [
        (" x ".join(map(str, each.shape)), _numbers(each.reshape(-1)[:4])) for each in logits]


_NAMES: dict[type[Answer], tuple[str, ...]] = {
    FilledMasks: ("words for each mask, with probability",), AnswerSpan: ("answer", "score", "characters"),
    Entities: ("entities, with score and characters",),
}


def _said(answer: Answer) -> tuple[str, ...]:
    if isinstance(answer, FilledMasks):
        lines = [", ".join(f"{w.word} {w.probability:.4f}" for w in mask.words) for mask in answer.masks]
        return ("\n".join(lines) or f"({answer.note})",)
    if isinstance(answer, AnswerSpan):
        if answer.note:
            return f"({answer.note})", "", ""
        return answer.text, f"{answer.score:.4f}", characters(answer.start, answer.end)
    found = [f"{e.label}: {e.text} {e.score:.4f} {characters(e.start, e.end)}".rstrip() for e in answer.entities]
    return ("\n".join(found) or "(none)",)


def characters(start: int | None, end: int | None) -> str:
    """A span of a text; nothing where the tokenizer cannot tell."""
    return "" if start is None else f"{start}..{end}"


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{v:.4f}" for v in np.asarray(values).reshape(-1))


def _labelled(label: Sequence[str] | None, probabilities: np.ndarray) -> tuple[str, str]:
    if label is None:
        return LEFT_OUT, ""
    if isinstance(label, str):
        return label, f"{probabilities.max():.4f}"
    if probabilities.ndim == 1:  # several labels per text
        return ", ".join(label) or "(none)", " ".join(f"{p:.4f}" for p in probabilities)
    best = probabilities.max(axis=-1)[: len(label)]  # one label per token
    return " ".join(label), f"{best.min():.4f} to {best.max():.4f}"


def _verdict(out: SecureOutput, i: int) -> tuple[str, str]:
    if out.labels is None or out.probabilities is None:
        return "-", "-"
    return str(out.labels[i]), f"{out.probabilities[i].max():.4f}"


def _farthest(a: SecureOutput, b: SecureOutput) -> float:
    if a.probabilities is None or b.probabilities is None:
        return 0.0
    return float(np.abs(a.probabilities - b.probabilities).max())
