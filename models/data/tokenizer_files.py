"""The files that make a folder's tokenizer, and how it is opened: as it was saved for clients, or by `transformers`."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from secformer.models.data.library import quiet
from secformer.models.data.saved_tokenizer import FACTS, FAST, SavedTokenizer, backend_of, load, opened, save
from secformer.mpc.errors import ModelError

PIECES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")  # files of sentencepiece
# each of these makes a tokenizer
COMPLETE: tuple[tuple[str, ...], ...] = ((FAST,), ("vocab.txt",), ("vocab.json", "merges.txt"), *((p,) for p in PIECES))
# what `transformers` writes for tokenizers, and reads again where it is there
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
                   "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", FACTS, *PIECES)
FEW = 4  # words: a tokenizer without any still has up to two pieces beside its special tokens
NEEDED = ("sentencepiece", "google.protobuf")  # the modules that read PIECES
PACKAGES = "sentencepiece protobuf"            # those that bring them


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has files that make a tokenizer."""
    return any(all((folder / name).is_file() for name in names) for names in COMPLETE)


def open_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer: the one that was saved for clients, or a fast one where `transformers` makes one.

    Raises ModelError where files are missing, or cannot be read, or make a tokenizer that knows no words.
    """
    if not has_tokenizer(folder):
        raise ModelError(f"{folder} has no tokenizer ({' or '.join(' with '.join(names) for names in COMPLETE)}); add "
                         f"its files, or give token ids as a dict with 'input_ids'")
    if (saved := load(folder)) is not None:
        return saved
    with quiet("transformers"):
        try:
            found = opened(folder)
        except ModelError:  # the library is not installed
            raise
        except Exception as error:  # the library raises many types; each means an unusable tokenizer
            raise ModelError(_unread(folder, error)) from error
    if len(found) - len(set(found.all_special_ids)) < FEW:  # the library takes no notice of files of other kinds
        there = ", ".join(name for name in TOKENIZER_FILES if (folder / name).is_file())
        raise ModelError(f"the tokenizer in {folder}, a {type(found).__name__} of {there}, knows no words beside its "
                         f"special tokens; these files belong to another kind of tokenizer. Copy the model's own")
    return found


def vocabulary(folder: Path) -> Mapping[str, int]:
    """The ids of all tokens that a folder's tokenizer has. `transformers` is not needed where there is a FAST one.

    Raises ModelError as `open_tokenizer`.
    """
    file = folder / FAST
    if not file.is_file():
        return dict(open_tokenizer(folder).get_vocab())
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}. Copy it again") from error
    return dict(backend_of(text, file).get_vocab())


def write_for_clients(folder: Path, to: Path) -> None:
    """Writes a folder's tokenizer into another folder. Clients open it without `transformers`, unless its class does
    more than the package `tokenizers` does; a tokenizer that cannot be opened is copied as it is.

    Raises OSError.
    """
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, to / name)
    with suppress(ModelError):  # such a model takes token ids
        if not isinstance(found := open_tokenizer(folder), SavedTokenizer):
            save(found, to)


def _unread(folder: Path, error: Exception) -> str:
    """Why the tokenizer cannot be opened, and what to do."""
    pieces = next((name for name in PIECES if (folder / name).is_file()), None)
    missing = [name for name in NEEDED if not _installed(name)]
    if pieces is not None and not (folder / FAST).is_file() and missing:
        return (f"{folder} has no fast tokenizer ({FAST}), and making one of {pieces} needs {' and '.join(missing)}, "
                f"not installed here. Make it once where they are (pip install {PACKAGES}): {conversion(folder)}")
    first = str(error).splitlines()[0] if str(error) else ""
    return (f"cannot read the tokenizer in {folder}: {type(error).__name__}: {first.rstrip(': ')}. Its files must be "
            f"those that save_pretrained wrote; copy all of them again, or write a fast one where `transformers` reads "
            f"them: {conversion(folder)}")


def conversion(folder: Path) -> str:
    """The command that writes a folder's fast tokenizer beside its other files."""
    program = ("import sys; from transformers import AutoTokenizer; "
               "AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])")
    return f'python -c "{program}" {shlex.quote(str(folder))}'


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False
