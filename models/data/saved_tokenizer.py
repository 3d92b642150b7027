"""A tokenizer as the model's owner saves it for clients, who open it with the package `tokenizers` alone.

`transformers` makes a tokenizer of a folder's files by rules of the model's class, and takes seconds to import. So the
owner writes what it made: tokenizer.json, and beside it the facts that `transformers` keeps outside of that file.

B texts, T tokens of the longest.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from secformer.models.data.library import transformers
from secformer.models.data.templates import rendered
from secformer.mpc.errors import ModelError
from secformer.mpc.strict_json import read_own

FAST, FACTS = "tokenizer.json", "tokenizer_facts.json"
FORMAT = "secformer tokenizer 1"
SIDES = ("right", "left")
# methods in which a class of tokenizers may do more than `tokenizers` does
METHODS = ("__call__", "_encode_plus", "_convert_encoding", "decode", "_decode", "clean_up_tokenization", "__len__",
           "added_tokens_decoder", "all_special_ids")
# texts on which a saved tokenizer must give what the opened one gives
PROBES = ("", " ", "The cat sat on the mat, didn't it? It's 3.5 km.", "  two  spaces\n\nand\tlines ",
          "ÀÉÎ naïve e\u0301 \ufb01", "Съешь ещё этих булок", "我爱北京天安门。東京タワー", "नमस्ते दुनिया",
          "مرحبا بالعالم", "\U0001f469\u200d\U0001f680 ok \u200b\ufeff\u00a0",
          "x = f(a[0]) + 'b' # 10_000", "<s>[CLS] <|endoftext|> </s>", "unbelievably-supercalifragilistic")
# conversations on which its template must write what transformers writes; a template may refuse some
CHATS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", " Hi <b>\"there\"</b> "),), (("assistant", "first"),), (("tool", "{}"), ("user", "")),
    (("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?\n"), ("user", "é 你")))
CUTS = (6, 9)  # lengths that they are cut to
CLEANED = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
           (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # where ids become text, one after the other


@dataclass(frozen=True)
class Facts:
    """What `transformers` knows of a tokenizer beside its tokenizer.json.

    sha256         of the tokenizer.json that they belong to, in hexadecimal
    segments       whether it gives tokens a segment
    side           the end at which texts are cut: "right" or "left"
    clean          whether spaces before punctuation go where ids become text
    specials       ids of the special tokens that have a role
    pad            id of the padding token
    mask           id and text of the token that stands for a word to be found
    chat_template  in Jinja's language
    special        texts of special tokens by their roles, which the template may write
    """

    sha256: str
    segments: bool
    side: str
    clean: bool
    specials: tuple[int, ...]
    pad: int | None
    mask: tuple[int, str] | None
    chat_template: str | None
    special: Mapping[str, str]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT} | asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Facts:
        """Raises ModelError for anything that `to_json` does not write."""
        try:
            read = read_own(text)
        except ValueError as error:
            raise ModelError(f"cannot read {where}: {error}. Copy the clients' folder again") from error
        if not isinstance(read, dict) or read.pop("format", None) != FORMAT:
            raise ModelError(f"{where} does not say format {FORMAT!r}; provision the model again with this version")
        wrong = sorted(set(read) ^ set(CHECKS)) or [key for key, holds in CHECKS.items() if not holds(read[key])]
        if wrong:
            raise ModelError(f"{where}: {', '.join(wrong)[:200]} must stand there as provisioning writes it; copy the "
                             f"clients' folder again")
        mask = read["mask"]
        return cls(**read | {"specials": tuple(read["specials"]), "mask": None if mask is None else tuple(mask)})


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32


CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "sha256": lambda v: isinstance(v, str),
    "segments": lambda v: isinstance(v, bool),
    "side": lambda v: v in SIDES,
    "clean": lambda v: isinstance(v, bool),
    "specials": lambda v: isinstance(v, list) and all(map(_is_id, v)),
    "pad": lambda v: v is None or _is_id(v),
    "mask": lambda v: v is None or (isinstance(v, list) and len(v) == 2 and _is_id(v[0]) and isinstance(v[1], str)),
    "chat_template": lambda v: v is None or isinstance(v, str),
    "special": lambda v: isinstance(v, dict) and all(name.isidentifier() and isinstance(text, str)
                                                     for name, text in v.items()),
}


class Encoded(dict[str, Any]):
    """Texts as tokens: lists by the names that `transformers` gives them."""

    def __init__(self, found: Sequence[Any], segments: bool):
        super().__init__(input_ids=[e.ids for e in found], attention_mask=[e.attention_mask for e in found],
                         special_tokens_mask=[e.special_tokens_mask for e in found],
                         offset_mapping=[e.offsets for e in found])
        if segments:
            self["token_type_ids"] = [e.type_ids for e in found]
        self._found = found

    def sequence_ids(self, i: int) -> list[int | None]:
        """For each token of text i, which text of a pair it comes from."""
        return list(self._found[i].sequence_ids)

    def word_ids(self, i: int) -> list[int | None]:
        """For each token of text i, the number of its word."""
        return list(self._found[i].word_ids)


class SavedTokenizer:
    """Stands where a tokenizer of `transformers` stands, as far as `Tokenizer` uses one. Several threads may use it."""

    is_fast = True

    def __init__(self, backend: Any, facts: Facts):
        self.backend_tokenizer, self._facts = backend, facts
        self._cutting = threading.Lock()  # where a text is cut is a setting of the backend
        self.all_special_ids, self.pad_token_id = list(facts.specials), facts.pad
        self.mask_token_id = None if facts.mask is None else facts.mask[0]
        self.mask_token = None if facts.mask is None else facts.mask[1]
        self.chat_template, self.truncation_side = facts.chat_template, facts.side

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=True))

    def __call__(self, first: str | Sequence[str], second: Sequence[str] | None = None, *, truncation: bool = False,
                 max_length: int | None = None, add_special_tokens: bool = True, **always: object) -> Any:
        """Lists of B, or for one str its ids and the like. `always` names what the result has in any case."""
        alone = isinstance(first, str)
        given = [first] if alone else list(first) if second is None else list(zip(first, second, strict=True))
        with self._cutting:
            if truncation:
                self.backend_tokenizer.enable_truncation(max_length, stride=0, strategy="longest_first",
                                                direction=self._facts.side)
            else:
                self.backend_tokenizer.no_truncation()
            found = self.backend_tokenizer.encode_batch(given, add_special_tokens=add_special_tokens)
        out = Encoded(found, self._facts.segments)
        return {name: values[0] for name, values in out.items()} if alone else out

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False,
               clean_up_tokenization_spaces: bool | None = None) -> str:
        """The text of tokens."""
        text = str(self.backend_tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))
        clean = self._facts.clean if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        for before, after in CLEANED if clean else ():
            text = text.replace(before, after)
        return text

    def convert_ids_to_tokens(self, token: int) -> str | None:
        found = self.backend_tokenizer.id_to_token(token)
        return None if found is None else str(found)

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Tokens that stand outside of the vocabulary's rules, by id."""
        found: Mapping[int, Any] = self.backend_tokenizer.get_added_tokens_decoder()
        return found

    def get_chat_template(self) -> str | None:
        return self.chat_template

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], **always: object) -> str:
        """The text of a conversation, up to where the answer begins. Raises as `templates.rendered`."""
        return rendered(self.chat_template or "", messages, self._facts.special)


def opened(folder: Path) -> Any:
    """The tokenizer that `transformers` makes of a folder's files. Raises what the library raises."""
    return transformers().AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def load(folder: Path) -> SavedTokenizer | None:
    """A folder's saved tokenizer; None where no facts are saved. Raises ModelError for files that do not fit."""
    file, fast = folder / FACTS, folder / FAST
    if not file.is_file():
        return None
    try:
        facts, text = Facts.from_json(file.read_bytes(), str(file)), fast.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the tokenizer in {folder}: {error}. Copy the clients' folder again") from error
    if hashlib.sha256(text).hexdigest() != facts.sha256:
        raise ModelError(f"{fast} is not the file that {FACTS} beside it describes; copy the clients' folder again")
    return SavedTokenizer(backend_of(text.decode("utf-8", "replace"), fast), facts)


def backend_of(text: str, where: Path) -> Any:
    """The tokenizer of the package `tokenizers` that the text of a tokenizer.json describes. Raises ModelError."""
    try:
        from tokenizers import Tokenizer as Backend
    except ImportError as error:
        raise ModelError(f"reading texts needs the package `tokenizers`, which cannot be imported here ({error}); "
                         f"install it: pip install \"secformer[client]\"") from error
    try:
        return Backend.from_str(text)
    except Exception as error:  # the library has no narrower type
        raise ModelError(f"cannot read {where}: {str(error)[:200]}. Install the version of the package `tokenizers` "
                         f"that the model's owner has, or a later one") from error


def save(found: Any, folder: Path) -> bool:
    """Writes an opened tokenizer of `transformers` so that `load` opens it. False, and nothing is written, where its
    class does more than `tokenizers` does, or where a probe shows that."""
    plain = getattr(transformers(), "TokenizersBackend", None)
    if plain is None or not isinstance(found, plain) or found.split_special_tokens or any(
            getattr(type(found), name) is not getattr(plain, name) for name in METHODS):
        return False
    try:
        template = str(found.get_chat_template()) if found.chat_template else None
    except ValueError:  # several templates, and none of them is the usual one
        return False
    backend = backend_of(found.backend_tokenizer.to_str(), folder)
    backend.no_truncation()
    backend.no_padding()
    text = backend.to_str(pretty=False)
    mask = None if found.mask_token_id is None else (int(found.mask_token_id), str(found.mask_token))
    pairs = type(found.backend_tokenizer.model).__name__ == "BPE"  # there, transformers never cleans
    facts = Facts(hashlib.sha256(text.encode()).hexdigest(), "token_type_ids" in found.model_input_names,
                  str(found.truncation_side), bool(found.clean_up_tokenization_spaces) and not pairs,
                  tuple(int(i) for i in found.all_special_ids),
                  None if found.pad_token_id is None else int(found.pad_token_id), mask, template,
                  {name: str(text) for name, text in found.special_tokens_map.items() if isinstance(text, str)})
    saved = SavedTokenizer(backend, facts)
    if not _same(found, saved) or (template is not None and not _same_chats(found, saved)):
        return False
    (folder / FAST).write_bytes(text.encode())
    (folder / FACTS).write_bytes(facts.to_json().encode() + b"\n")
    return True


def _same(found: Any, saved: SavedTokenizer) -> bool:
    """Whether both give the same for the probes: alone and in pairs, whole and cut, as tokens and as text again."""
    every: dict[str, Any] = {"padding": False, "return_special_tokens_mask": True, "return_offsets_mapping": True,
                             "verbose": False}
    second = [*PROBES[1:], PROBES[0]]
    for texts in ((list(PROBES),), (list(PROBES), second)):
        for most in (None, *CUTS):
            one, other = (t(*texts, truncation=most is not None, max_length=most, **every) for t in (found, saved))
            parts = (other.sequence_ids, one.sequence_ids), (other.word_ids, one.word_ids)
            if dict(one) != dict(other) or any(a(i) != b(i) for a, b in parts for i in range(len(PROBES))):
                return False
    return all(found.decode(ids, skip_special_tokens=skip) == saved.decode(ids, skip_special_tokens=skip)
               for ids in saved(list(PROBES))["input_ids"] for skip in (False, True))


def _same_chats(found: Any, saved: SavedTokenizer) -> bool:
    """Whether both make the same text of every conversation, or refuse it. False where Jinja is not installed."""
    if find_spec("jinja2") is None:
        return False

    def text(tokenizer: Any, chat: tuple[tuple[str, str], ...]) -> str | None:
        messages = [{"role": role, "content": content} for role, content in chat]
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception:  # a template may raise anything
            return None

    wanted = [text(found, chat) for chat in CHATS]
    return any(wanted) and wanted == [text(saved, chat) for chat in CHATS]
