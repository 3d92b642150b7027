"""Which drafter a generation has: the look-up, a draft model, one of the user's own, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from secformer.models.data.checkpoint import PathLike
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.generation.drafting import Drafter, LookUp
from secformer.models.generation.sampling import Sampling
from secformer.models.run.draft_model import DraftModel
from secformer.mpc.errors import SettingsError

AUTO = "auto"
Draft = Drafter | Literal["auto"] | PathLike | None


def drafter_of(draft: Draft, tokenizer: Tokenizer) -> Drafter | None:
    """What guesses tokens ahead for a model with this tokenizer.

    draft  "auto": what is found in the text itself; the folder of a draft model; a Drafter, such as a `DraftModel`;
           None: nothing

    Raises SettingsError for anything else, what `DraftModel` raises for a folder, and ModelError for a draft model with
    another vocabulary.
    """
    if draft == AUTO:
        return LookUp()
    if isinstance(draft, str | os.PathLike) and Path(draft).is_dir():
        draft = DraftModel(draft)
    if isinstance(draft, DraftModel):
        draft.require(tokenizer)
    if draft is None or (not isinstance(draft, str | os.PathLike) and callable(getattr(draft, "draft", None))):
        return draft
    raise SettingsError(f"draft must be 'auto', None for one token in each step, the folder of a draft model, or a "
                        f"Drafter; got {draft!r}")


def advice(drafter: Drafter | None, ids: Sequence[int], sampling: Sampling) -> list[str]:
    """Notes on a draft model that will not be of use to a text that begins with `ids`, or not to all of it."""
    if not isinstance(drafter, DraftModel):
        return []
    if sampling.do_sample:
        return ["tokens are sampled, so the draft model drafts nothing: drafts are for greedy decoding"]
    return drafter.advice(ids, sampling.max_new_tokens)
