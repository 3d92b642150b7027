"""Texts as token ids, checked before the client shares anything.

B texts, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from secformer.models.data.batch import Row
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.library import quiet, transformers
from secformer.mpc.errors import InputError, ModelError

Texts = str | Sequence[str] | Sequence[tuple[str, str]] | Mapping[str, Any]
FILES = ("tokenizer.json", "vocab.txt")  # of which one makes a tokenizer
# what `transformers` writes for tokenizers, and reads again where it is there
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
                   "special_tokens_map.json", "added_tokens.json", "spiece.model", "sentencepiece.bpe.model",
                   "tokenizer.model")
KEYS = ("input_ids", "attention_mask", "token_type_ids")


class Tokenizer:
    """A folder's own tokenizer. It is opened when first needed; dicts of token ids do not need it."""

    def __init__(self, folder: Path, inputs: TokenInputs):
        self.folder, self.inputs = folder, inputs
        self._loaded: Any = None

    def rows(self, texts: Texts, *, truncation: bool = False) -> list[Row]:
        """Checked rows, in the order of the texts.

        Raises InputError for texts that the model cannot take, and ModelError for a tokenizer that cannot be read.
        """
        if isinstance(texts, Mapping):
            rows = id_rows(texts, self.inputs)
        else:
            rows = self._text_rows(text_list(texts), truncation)
        return [self._fitted(i, row, truncation) for i, row in enumerate(rows)]

    def _text_rows(self, texts: list[str] | list[tuple[str, str]], truncation: bool) -> list[Row]:
        tokenizer = self._tokenizer()
        paired = not isinstance(texts[0], str)
        first = [self._given(self.inputs.prompt + (text if isinstance(text, str) else text[0])) for text in texts]
        second = [self._given(text[1]) for text in texts] if paired else None
        with quiet("transformers"):
            out = tokenizer(
                first, second, verbose=False, padding=False,
                truncation=truncation, max_length=self.inputs.longest if truncation else None,
                return_attention_mask=True,
            )
        kept = KEYS if self.inputs.segments else KEYS[:2]  # a family without segments takes a pair as one text
        found = {k: out[k] for k in kept if k in out}  # without segments in them, all tokens are of the first one
        if paired and max(max(row, default=0) for row in found.get(KEYS[2], [[0]])) >= max(1, self.inputs.segments):
            raise InputError(f"the tokenizer puts the second text of a pair into segment 1, but this model has "
                             f"{self.inputs.segments} segment(s) (type_vocab_size in config.json), so it takes no "
                             f"pairs; give single texts")
        return id_rows(found, self.inputs)

    def _given(self, text: str) -> str:
        return text.lower() if self.inputs.lower else text

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt takes at a text's start, special ones before it included."""
        tokenizer = self._tokenizer()
        ids = tokenizer(self._given(self.inputs.prompt), verbose=False)["input_ids"]
        return len(ids) - (ids[-1] in tokenizer.all_special_ids)

    @property
    def takes_pairs(self) -> bool:
        """Whether the model has the segments that this tokenizer gives to pairs. Raises ModelError as `rows`."""
        try:
            self.rows([("", "")], truncation=True)
        except InputError:
            return False
        return True

    def _fitted(self, i: int, row: Row, truncation: bool) -> Row:
        most = self.inputs.longest
        if len(row) <= most:
            return row
        if not truncation:
            raise InputError(f"text {i} has {len(row)} tokens; this model takes at most {most}. Shorten it, or pass "
                             f"truncation=True to cut it")
        cut = Row(row.ids[:most], row.segments[:most], row.mask[:most])
        if not cut.mask.any():
            raise InputError(f"text {i} has no token to attend to among the first {most}, which truncation keeps; "
                             f"shorten the text yourself")
        return cut

    def _tokenizer(self) -> Any:
        if self._loaded is None:
            if not any((self.folder / name).is_file() for name in FILES):
                raise ModelError(f"{self.folder} has no tokenizer ({' or '.join(FILES)}); add its files, or give token "
                                 f"ids as a dict with 'input_ids'")
            library = transformers()
            with quiet("transformers"):
                try:
                    self._loaded = library.AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)
                except Exception as error:  # the library raises many types; each means an unusable tokenizer
                    raise ModelError(f"cannot read the tokenizer in {self.folder}: {type(error).__name__}: "
                                     f"{str(error).splitlines()[0] if str(error) else ''}") from error
        return self._loaded


def text_list(texts: Any) -> list[str] | list[tuple[str, str]]:
    """One text, several texts, or pairs, as a list. Raises InputError for an empty list, other types, or a mixture."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes | bytearray):
        raise InputError(f"texts must be a str, a list of str, a list of pairs of str, or a dict of token ids; got "
                         f"{type(texts).__name__}")
    if not texts:
        raise InputError("the list of texts is empty; give at least one text")
    if all(isinstance(t, str) for t in texts):
        return list(texts)
    for i, t in enumerate(texts):
        pair = isinstance(t, Sequence) and not isinstance(t, str | bytes) and len(t) == 2
        if not pair or not all(isinstance(part, str) for part in t):
            raise InputError(f"texts must be all str, or all pairs of str; text {i} is {_shown(t)}")
    return [(a, b) for a, b in texts]


def id_rows(tokens: Mapping[str, Any], inputs: TokenInputs) -> list[Row]:
    """Rows of a dict as a tokenizer returns it. Padding at the end is dropped.

    The dict has `input_ids` and may have `attention_mask` (1 or 0) and `token_type_ids`. Each is a list or an array,
    (T,) or (B, T), or a list of lists of different lengths. Raises InputError for anything else.
    """
    if "input_ids" not in tokens:
        raise InputError(f"a dict of token ids needs 'input_ids'; got {sorted(map(str, tokens))}")
    if unknown := sorted(str(k) for k in tokens if k not in KEYS):
        raise InputError(f"a dict of token ids may have the keys {', '.join(KEYS)} only; got {', '.join(unknown)} too")
    ids = _integer_rows("input_ids", tokens["input_ids"])
    mask = _integer_rows("attention_mask", tokens["attention_mask"]) if tokens.get("attention_mask") is not None else [
        np.ones_like(r) for r in ids]
    kinds = _integer_rows("token_type_ids", tokens["token_type_ids"]) if tokens.get("token_type_ids") is not None else [
        np.zeros_like(r) for r in ids]
    if [len(r) for r in ids] != [len(r) for r in mask] or [len(r) for r in ids] != [len(r) for r in kinds]:
        raise InputError("input_ids, attention_mask and token_type_ids must have the same shape")
    return [_row(i, *row, inputs) for i, row in enumerate(zip(ids, kinds, mask, strict=True))]


def _row(i: int, ids: np.ndarray, segments: np.ndarray, mask: np.ndarray, inputs: TokenInputs) -> Row:
    if not np.isin(mask, (0, 1)).all():
        raise InputError(f"text {i}: attention_mask must hold 1 (attend) and 0 (ignore) only; got {_shown(mask)}")
    if not mask.any():
        raise InputError(f"text {i} has no token to attend to: its attention_mask is all 0, or it has no ids")
    end = int(np.flatnonzero(mask)[-1]) + 1
    ids, segments, mask = ids[:end], segments[:end], mask[:end]
    for name, values, size in ((KEYS[0], ids, inputs.words), (KEYS[2], segments, max(1, inputs.segments))):
        if values.min() < 0 or values.max() >= size:
            raise InputError(f"text {i}: {name} must lie in 0..{size - 1} for this model; got "
                             f"{values.min()}..{values.max()}. Was it tokenised for another model?")
    return Row(ids, segments, mask)


def _integer_rows(name: str, values: Any) -> list[np.ndarray]:
    try:
        rows = [np.asarray(v) for v in values]
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a list or an array of integers, got {_shown(values)}") from error
    if not rows:
        raise InputError(f"{name} is empty; give at least one text")
    if all(r.ndim == 0 for r in rows):
        rows = [np.asarray(rows)]
    for r in rows:
        if r.ndim != 1 or (r.size and r.dtype.kind not in "iub"):
            raise InputError(f"{name} must hold whole numbers, (T,) or (B, T); got {_shown(values)}")
    return [r.astype(np.int64) for r in rows]


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
