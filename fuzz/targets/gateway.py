"""Bodies of requests to the gateway: JSON from any program on the client's side."""

from __future__ import annotations

import json

from fuzz.mutators import json_text
from fuzz.target import Target, require, stateless
from secformer.gateway.completions import options_of, prompts_of
from secformer.gateway.fields import Fields
from secformer.gateway.messages import messages_of
from secformer.gateway.ranking import documents_of
from secformer.gateway.refusals import Refusal
from secformer.models.generation.sampling import Sampling
from secformer.mpc.errors import InputError


def body(data: bytes) -> None:
    """Reads one field of texts, by its name, and all options of generation."""
    try:
        fields = Fields(data)
        fields.text("model")
        if fields.has("messages"):
            found = messages_of(fields.needed("messages"))
            require(messages_of(found) == found, "messages have one meaning")
        elif fields.has("documents"):
            documents = documents_of(fields)
            again = documents_of(Fields(json.dumps({"documents": documents}).encode()))
            require(again == documents, "documents have one meaning")
        elif fields.has("prompt"):
            prompts_of(fields)
        else:
            fields.inputs("input")
        Sampling(**options_of(fields))
        fields.end()
    except Refusal as refusal:
        json.dumps(refusal.body, ensure_ascii=False).encode()
        raise InputError(str(refusal)) from refusal


TARGETS = (
    Target("gateway-bodies", ("secformer/gateway/fields.py", "secformer/gateway/messages.py",
                              "secformer/gateway/ranking.py", "secformer/gateway/completions.py"),
           stateless(body), json_text()),
)
