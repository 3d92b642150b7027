"""Documents by their scores for a query, in the shape of Cohere and Jina; and labels of texts, in Jina's."""

from __future__ import annotations

from typing import Any

from secformer.gateway.desk import Desk
from secformer.gateway.fields import MOST, Fields, wrong
from secformer.gateway.refusals import Refusal
from secformer.gateway.visits import Visit
from secformer.roles.halves import fresh_id


def rerank(fields: Fields, desk: Desk, visit: Visit) -> dict[str, Any]:
    """The documents, best first. Raises Refusal, and as `Visit`."""
    query, documents = fields.text("query"), documents_of(fields)
    most, back = fields.whole("top_n", 1), fields.flag("return_documents")
    fields.neutral({"max_chunks_per_doc": (), "max_tokens_per_doc": (), "rank_fields": (), "priority": (0,),
                    "truncation": (), "overlap_tokens": ()})
    fields.end()
    found = visit.rerank(query, documents, top_k=most)
    return {
        "id": fresh_id(), "object": "list", "model": desk.name,
        "results": [{"index": each.corpus_id, "relevance_score": each.score}
                    | ({"document": {"text": each.text}} if back else {}) for each in found],
        "usage": {"prompt_tokens": visit.tokens, "total_tokens": visit.tokens},
    }


def documents_of(fields: Fields) -> list[str]:
    given = fields.needed("documents")
    if not isinstance(given, list) or not 0 < len(given) <= MOST:
        wrong("documents", f"a list of 1 to {MOST} documents")
    found = [each["text"] if isinstance(each, dict) and set(each) == {"text"} else each for each in given]
    return found if all(isinstance(each, str) for each in found) else wrong(
        "documents", "a list of strings, or of objects with a string 'text' and nothing else")


def classify(fields: Fields, desk: Desk, visit: Visit) -> dict[str, Any]:
    """Each input's best label and all labels' scores. The field is named `input`, or `inputs`. Raises Refusal, and as
    `Visit`."""
    name = "inputs" if fields.has("inputs") else "input"
    texts = fields.inputs(name)
    for other, what in (("labels", "labels of your own"), ("examples", "examples"), ("classifier_id", "a classifier")):
        if fields.take(other) is not None:
            raise Refusal(400, "unsupported_parameter", f"{desk.name} has labels of its own, and takes no {what}; "
                                                        f"leave {other!r} out", param=other)
    fields.neutral({"truncate": ("NONE",)})
    fields.end()
    found = visit.classify(texts, top_k=None)
    return {
        "id": fresh_id(), "object": "list", "model": desk.name,
        "data": [{"object": "classification", "index": i, "prediction": labels[0].label, "score": labels[0].score,
                  "predictions": [{"label": each.label, "score": each.score} for each in labels]}
                 for i, labels in enumerate(found)],
        "usage": {"prompt_tokens": visit.tokens, "total_tokens": visit.tokens},
    }
