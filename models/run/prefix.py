"""The public prefix of a decoder: tokens that every text begins with, such as BOS or a system prompt.

Its keys and values are constants of the model. The owner computes them in plaintext, and they are shared as weights.
Many decoders need it: at its first token, values are some hundred times as large as at all others. A public first token
is never computed on shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import PlainTensors
from secformer.models.families.attending import prefix_names
from secformer.models.families.blocks import Forward
from secformer.models.families.caching import Cached, Timeline, caches
from secformer.models.families.decoder import Decoder
from secformer.models.families.folder import ModelFolder
from secformer.models.families.heads import Head
from secformer.models.generation.prompts import common_start, public_start
from secformer.models.run.decoding import new_tokens
from secformer.mpc.errors import ModelError, SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.protocols.recipes import EXACT

Prefix = str | Sequence[int] | None
AUTO = "auto"


def begin(folder: ModelFolder, prefix: Prefix) -> None:
    """Gives a folder's decoder its public prefix, unless it has one. Other models have none.

    prefix  as `public_prefix` in `Settings`

    Raises SettingsError for ids that the model does not have, or as many as its context; and InputError for a system
    prompt that the chat template does not take.
    """
    decoder = folder.architecture
    if not isinstance(decoder, Decoder) or decoder.head is not Head.CAUSAL:
        if prefix not in (None, AUTO):
            raise SettingsError(f"{decoder.spec.architecture} takes no public prefix: it is no causal language model")
        return
    ids = _ids(folder, prefix)
    if not ids or decoder.spec.prefix:
        return
    if not all(0 <= i < decoder.spec.vocab for i in ids) or len(ids) >= decoder.spec.longest:
        raise SettingsError(f"a public prefix holds ids below {decoder.spec.vocab}, and fewer than the "
                            f"{decoder.spec.longest} tokens of a text; got {len(ids)} tokens")
    folder.begin(decoder.behind(ids), tensors_of(folder, decoder, ids))


def _ids(folder: ModelFolder, prefix: Prefix) -> tuple[int, ...]:
    if prefix is None:
        return ()
    if not isinstance(prefix, str):
        return tuple(int(i) for i in prefix)
    if prefix != AUTO:
        return public_start(folder.tokenizer, prefix, chat=True)
    try:
        return common_start(folder.tokenizer)
    except ModelError:  # no tokenizer: prompts are token ids, of which nothing is known
        return ()


def tensors_of(folder: ModelFolder, decoder: Decoder, ids: Sequence[int]) -> Mapping[str, np.ndarray]:
    """Keys and values (P, G D) of tokens at the beginning of a text, by layer, in float64."""
    s, timeline, batch = PlainSession(strict=False), Timeline(), new_tokens(ids)
    parameters = load_weights(s, PlainTensors(decoder.layout(None), folder.checkpoint))
    pairs = caches(s, decoder, parameters)
    positions = timeline.take(len(ids))
    for cache in (cache for pair in pairs for cache in pair):
        cache.grow(len(ids) + 1)
    attention = Cached(positions, pairs, lambda reach: timeline.seen(positions, len(ids) + 1, reach))
    decoder.hidden(s, s.accept(folder.embeddings(batch)), Forward(batch, parameters, EXACT, lambda site: {}), attention)
    return {name: cache.data.values[: len(ids)].reshape(len(ids), -1)
            for i, pair in enumerate(pairs) for name, cache in zip(prefix_names(i), pair, strict=True)}
