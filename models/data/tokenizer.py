"""Texts as token ids, checked before the client shares anything.

B texts, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from secformer.models.data.batch import Row
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.library import quiet
from secformer.models.data.tokenizer_files import open_tokenizer
from secformer.models.data.unicode import require_unicode
from secformer.mpc.errors import InputError, ModelError, TooLong

PARTS = ("the first", "the second")  # of a pair of texts
KEYS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Places:
    """Where the tokens of one text stand in it. `repr` shows nothing, because the text is secret.

    texts  the text, or both texts of a pair
    part   (T,): 0 or 1, the text that a token comes from; -1 for a token that the tokenizer added, such as [SEP]
    word   (T,): the number of the token's word within its text; -1 for a token that the tokenizer added
    spans  (T, 2): the token's first character, and the first one behind it; None where the tokenizer cannot tell
    """

    texts: tuple[str, ...] = field(repr=False)
    part: np.ndarray = field(repr=False)
    word: np.ndarray = field(repr=False)
    spans: np.ndarray | None = field(repr=False)


@dataclass(frozen=True)
class Reading:
    """Texts as the model takes them. `places` has one entry per text; it is None for token ids, which have no text."""

    rows: list[Row]
    places: list[Places] | None = None


Texts = str | Sequence[str] | Sequence[tuple[str, str]] | Mapping[str, Any] | Reading


class Tokenizer:
    """A folder's own tokenizer. It is opened when first needed; dicts of token ids do not need it."""

    def __init__(self, folder: Path, inputs: TokenInputs):
        self.folder, self.inputs = folder, inputs
        self._loaded: Any = None

    def rows(self, texts: Texts, *, truncation: bool = False) -> list[Row]:
        """Checked rows, in the order of the texts. Raises as `read` does."""
        return self.read(texts, truncation=truncation).rows

    def read(self, texts: Texts, *, truncation: bool = False) -> Reading:
        """Checked rows, in the order of the texts, and where their tokens stand in the texts. What this tokenizer has
        read before stays as it is.

        Raises InputError for texts that the model cannot take, and ModelError for a tokenizer that cannot be read.
        """
        if isinstance(texts, Reading):
            return texts
        rows, places = (id_rows(texts, self.inputs), None) if isinstance(texts, Mapping) else self._read(
            text_list(texts), truncation)
        behind = [self._behind(i, row) for i, row in enumerate(rows)]
        return Reading([self._fitted(i, row, truncation) for i, row in enumerate(behind)], places)

    @property
    def opened(self) -> Any:
        """The tokenizer itself (see `tokenizer_files`). Raises ModelError for one that cannot be read."""
        if self._loaded is None:
            self._loaded = open_tokenizer(self.folder)
        return self._loaded

    def words(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of tokens, as the tokenizer writes it; without its special tokens if `special` is False."""
        return str(self.opened.decode([int(i) for i in ids], skip_special_tokens=not special))

    def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of one text as it stands; without the tokens that are put around every text if `special` is False."""
        with quiet("transformers"):
            return [int(i) for i in self.opened(text, verbose=False, add_special_tokens=special)["input_ids"]]

    def generated(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special ones. Spaces stay as they are, so that further tokens only add
        to it; a character of which some bytes are missing is U+FFFD."""
        tokenizer = self.opened
        return str(tokenizer.decode(list(map(int, ids)), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def special(self, text: str) -> int | None:
        """The id of the special token that is written so, such as "<|im_end|>"; None where there is none."""
        known = self.opened.added_tokens_decoder
        return next((int(i) for i, token in known.items() if token.special and token.content == text), None)

    @property
    def specials(self) -> frozenset[int]:
        """The ids of all special tokens."""
        return frozenset(int(i) for i, token in self.opened.added_tokens_decoder.items() if token.special)

    @property
    def chat_template(self) -> str | None:
        """The template, in Jinja's language, that makes one text of a conversation; None where there is none."""
        found = self.opened
        return None if not found.chat_template else str(found.get_chat_template())

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of a conversation up to where the model's answer begins, by the tokenizer's own template.

        Each message has a `role` and a `content`. Raises ModelError where Jinja is not installed, and InputError for
        messages that the template does not take.
        """
        with quiet("transformers"):
            try:
                return str(self.opened.apply_chat_template([dict(m) for m in messages], tokenize=False,
                                                                 add_generation_prompt=True))
            except ImportError as error:
                raise ModelError(f"messages are made a text by the tokenizer's chat template, which needs the package "
                                 f"`jinja2`, version 3.1 or later ({error}); install it: pip install "
                                 f"\"secformer[chat]\". Or give the prompt as one text") from error
            except Exception as error:  # a template may raise, and do anything with what it is given
                roles = ", ".join(repr(m["role"]) for m in messages)
                raise InputError(f"the chat template in {self.folder} does not take messages with the roles {roles}, "
                                 f"in this order: {type(error).__name__}: {error}") from error

    @property
    def mask(self) -> tuple[int, str] | None:
        """The token that stands for a word to be found: its id and its text. None for a tokenizer without one."""
        found = self.opened
        return None if found.mask_token_id is None else (int(found.mask_token_id), str(found.mask_token))

    def compare(self, *, masks: bool) -> list[str]:
        """Notes on tokens for which the model has no words, and on a tokenizer that cannot be opened: such a model
        takes token ids.

        masks  the model finds words for masks

        Raises ModelError where the model has no word for a token that is in every text, or, with `masks`, in every
        text that it is for.
        """
        try:
            tokenizer = self.opened
        except ModelError as error:
            return [f"texts cannot be tokenised, so give token ids: {error}"]
        words, notes = self.inputs.words, []
        needed = {int(i) for i in tokenizer("", verbose=False)["input_ids"]}
        if masks and self.mask is not None:
            needed.add(self.mask[0])
        if outside := sorted(i for i in needed if i >= words):
            raise ModelError(f"the tokenizer in {self.folder} gives {tokenizer.convert_ids_to_tokens(outside[0])!r} "
                             f"the id {outside[0]}, but the model has words for 0..{words - 1} (vocab_size in "
                             f"config.json). One of both is another model's; copy both from the same one")
        if len(tokenizer) > words:
            notes.append(f"the tokenizer knows {len(tokenizer)} tokens, but the model has words for {words} (vocab_size"
                         f" in config.json): texts with a token beyond them are refused")
        if self.inputs.pad is not None and tokenizer.pad_token_id != self.inputs.pad:
            notes.append(f"the tokenizer pads with the id {tokenizer.pad_token_id}, but the model counts positions "
                         f"without the id {self.inputs.pad} (pad_token_id in config.json): pad token ids with the "
                         f"latter")
        return notes

    def _read(self, texts: list[str] | list[tuple[str, str]], truncation: bool) -> tuple[list[Row], list[Places]]:
        tokenizer = self.opened
        parts = [(text,) if isinstance(text, str) else text for text in texts]
        first, *second = ([self._given(part) for part in each] for each in zip(*parts, strict=True))
        first = [self._given(self.inputs.prompt) + text for text in first]
        with quiet("transformers"):
            out = tokenizer(
                first, *second, verbose=False, padding=False, truncation=truncation,
                max_length=self.inputs.context if truncation else None, return_attention_mask=True,
                return_special_tokens_mask=True, return_offsets_mapping=tokenizer.is_fast,
            )
        kept = KEYS if self.inputs.segments else KEYS[:2]  # a family without segments takes a pair as one text
        found = {k: out[k] for k in kept if k in out}  # without segments in them, all tokens are of the first one
        if second and max(max(row, default=0) for row in found.get(KEYS[2], [[0]])) >= max(1, self.inputs.segments):
            raise InputError(f"the tokenizer puts the second text of a pair into segment 1, but this model has "
                             f"{self.inputs.segments} segment(s) (type_vocab_size in config.json), so it takes no "
                             f"pairs; give single texts")
        return id_rows(found, self.inputs), [_places(out, i, part, tokenizer.is_fast) for i, part in enumerate(parts)]

    def _given(self, text: str) -> str:
        return text.lower() if self.inputs.lower else text

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt takes at a text's start, special ones before it included."""
        tokenizer = self.opened
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

    def _behind(self, i: int, row: Row) -> Row:
        """A text that begins with the public prefix without it: the model has that already."""
        before = self.inputs.before
        if not before or tuple(row.ids[: len(before)].tolist()) != before or not row.mask[: len(before)].all():
            return row
        if len(row) == len(before):
            raise InputError(f"text {i} is the model's public prefix of {len(before)} tokens and nothing else; give at "
                             f"least one token that follows it")
        return Row(row.ids[len(before) :], row.segments[len(before) :], row.mask[len(before) :])

    def _fitted(self, i: int, row: Row, truncation: bool) -> Row:
        most = self.inputs.longest
        if len(row) <= most:
            return row
        if not truncation:
            raise TooLong(f"text {i} has {len(row)} tokens; this model takes at most {most}. Shorten it, or let it be "
                          f"cut: truncation=True in Python, --truncation on the command line, truncation in a client's "
                          f"settings file")
        cut = row.cut(most)
        if not cut.mask.any():
            raise InputError(f"text {i} has no token to attend to among the first {most}, which truncation keeps; "
                             f"shorten the text yourself")
        return cut


def _places(out: Any, i: int, texts: tuple[str, ...], fast: bool) -> Places:
    """Those of text i of a tokenizer's output. A tokenizer that is not fast knows no characters and no words."""
    if fast:
        part, word = (np.array([-1 if each is None else each for each in found])
                      for found in (out.sequence_ids(i), out.word_ids(i)))
        spans = np.array(out["offset_mapping"][i]).reshape(-1, 2)
        for token in np.flatnonzero(part >= 0):  # some tokens take the spaces before them in, such as RoBERTa's <mask>
            start, end = spans[token]
            found = texts[part[token]][start:end]
            spans[token, 0] += len(found) - len(found.lstrip()) if found.strip() else 0
        return Places(texts, part, word, spans)
    added = np.array(out["special_tokens_mask"][i]) == 1
    kinds = np.array(out[KEYS[2]][i]) if KEYS[2] in out else np.zeros(len(added), np.int64)
    if not kinds.any():  # a tokenizer without segments puts tokens of its own between the texts of a pair
        steps, own = np.arange(len(added)), np.flatnonzero(~added)
        between = np.flatnonzero(added & (steps > own[0])) if own.size and texts[0].strip() else steps
        kinds = steps > (between[0] if between.size else len(added))
    guessed = np.where(added, -1, kinds if len(texts) > 1 else 0)
    return Places(texts, guessed, np.where(guessed < 0, -1, np.arange(len(guessed))), None)


def text_list(texts: Any) -> list[str] | list[tuple[str, str]]:
    """One text, several texts, or pairs, as a list.

    Raises InputError for an empty list, other types, a mixture, or a text that is not valid Unicode.
    """
    found = _listed(texts)
    for i, text in enumerate(found):
        for part, each in enumerate((text,) if isinstance(text, str) else text):
            require_unicode(each, f"text {i}" if isinstance(text, str) else f"text {i}, {PARTS[part]} of its pair,")
    return found


def _listed(texts: Any) -> list[str] | list[tuple[str, str]]:
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
    if inputs.pad is not None:
        _require_padding(i, ids, mask, inputs.pad)
    return Row(ids, segments, mask)


def _require_padding(i: int, ids: np.ndarray, mask: np.ndarray, pad: int) -> None:
    """Raises InputError where the mask does not say which tokens are padding."""
    wrong = np.flatnonzero((ids != pad) != (mask == 1))
    if wrong.size:
        at, attended = int(wrong[0]), bool(mask[wrong[0]])
        came = (f"token {at} is the padding token, but its attention_mask is 1" if attended else
                f"token {at} has the attention_mask 0, but it is not the padding token (id {pad})")
        raise InputError(f"text {i}: {came}. This model counts positions without padding tokens (id {pad}), and only "
                         f"the mask is public, so the mask must be 0 at padding tokens and 1 elsewhere; "
                         f"{'remove that token, or mask it' if attended else f'put id {pad} there'}")


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
