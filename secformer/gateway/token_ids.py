"""Token ids that callers send: whether they are those of the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from secformer.models.data.tokenizer import Tokenizer
from secformer.mpc.errors import InputError, ModelError


def require_own(tokenizer: Tokenizer, ids: Sequence[Sequence[int]]) -> None:
    """Raises InputError for a text of token ids without the tokens that the tokenizer puts around every text, such as
    [CLS] and [SEP]. Ids of another model's tokenizer hardly ever have them; here they would mean other words.

    Nothing is checked where the tokenizer cannot be opened: such a model takes only ids that were made elsewhere.
    """
    try:
        around = tokenizer.tokens("")
    except ModelError:
        return
    for i, each in enumerate(ids):
        ends = [each[0] == around[0], each[-1] == around[-1]] if around and each else []
        if ends and not (all(ends) if len(around) > 1 else any(ends)):
            raise InputError(f"text {i}: token ids must be those of this model's own tokenizer, with the ids {around} "
                             f"that it puts around a text; these were made for another model, or without special "
                             f"tokens. Give the text itself, or tokenise it with this model's tokenizer")
