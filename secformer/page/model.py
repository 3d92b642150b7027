"""What the page must know of a provisioned model: two files, made of the clients' folder. They hold no secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secformer.models.data.checkpoint import PathLike
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.architecture import SENTENCE
from secformer.models.families.heads import Head
from secformer.models.families.program import GUARD
from secformer.models.generation.stops import end_tokens
from secformer.models.run.decoding import AT_ONCE
from secformer.models.run.public import PublicModel
from secformer.mpc.errors import ModelError
from secformer.page.conversation import frame
from secformer.page.tokenizing import exported

FORMAT = "secformer page 1"
MODEL, TOKENIZER = "model.json", "tokenizer.json"
LABELS, EMBEDDING, TOKENS, TEXT = "labels", "embedding", "tokens", "text"
KINDS = {Head.SEQUENCE: LABELS, Head.ENCODER: EMBEDDING, Head.TOKEN: TOKENS, Head.MASKED: TOKENS, Head.CAUSAL: TEXT}
INSTEAD = "use the Python client or the gateway for this model"


def page_model(folder: PathLike) -> dict[str, bytes]:
    """The files of a page's model folder, by name, made of the clients' folder that `secformer provision` wrote.

    Raises ModelError where the folder cannot be read, and for a model that the page cannot serve; the error says why.
    """
    public = PublicModel.load(folder)
    tokenizer = Tokenizer(Path(folder), public.inputs)
    kind = _kind(public)
    inputs, spec = public.inputs, public.architecture.spec
    whole, facts = exported(tokenizer)
    mask = tokenizer.mask if public.architecture.head is Head.MASKED else None
    model: dict[str, Any] = {
        "format": FORMAT, "kind": kind, "digest": public.digest, "words": inputs.words, "segments": inputs.segments,
        "longest": inputs.longest, "context": inputs.context, "prompt": inputs.prompt, "pad": inputs.pad,
        "prefix": list(inputs.before), "frac": public.fixed.frac, "guarded": GUARD in public.names,
        "names": list(public.step_names if kind == TEXT else public.names),
        "by_token": {name: by_token for name, by_token in public.architecture.results.items() if name in public.names},
        "labels": list(spec.labels), "problem": spec.problem, "score": spec.score,
        "unit": public.architecture.unit_embeddings, "mask": None if mask is None else mask[0],
        "notes": list(public.notes), "tokenizer": facts,
    }
    if kind == TEXT:
        model["generation"] = {"ends": sorted(end_tokens(Path(folder))), "at_once": AT_ONCE,
                               "conversation": frame(tokenizer)}
    return {MODEL: _json(model), TOKENIZER: _json(whole)}


def _kind(public: PublicModel) -> str:
    """What the page shows of the model's answers. Raises ModelError for a model that it cannot serve."""
    architecture = public.architecture
    if not public.private:
        raise ModelError("the clients of this model hold its embedding tables (`secformer provision --embedding "
                         f"client`), and a page would give them to everyone who opens it; {INSTEAD}")
    if architecture.inputs.lower:
        raise ModelError(f"this model puts its texts into lower case before they are tokenised, which browsers do in "
                         f"different ways; {INSTEAD}")
    kind = KINDS.get(architecture.head)
    if kind is None:
        raise ModelError(f"the page shows no answers of a model that tells {architecture.head.value}; {INSTEAD}")
    if kind == EMBEDDING and not {SENTENCE, "last_hidden_state"} & set(public.names):
        raise ModelError(f"the clients of this model receive {', '.join(public.names)}, of which the page can make no "
                         f"embedding; provision it with the hidden states")
    if kind == TEXT and not public.steps:
        raise ModelError("this model was provisioned by a version that did not generate text; provision it again")
    return kind


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
