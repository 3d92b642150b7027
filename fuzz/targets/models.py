"""Files about models: range profiles, public descriptions, share files, tables, checkpoints and folders."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.mutators import json_text, tensors
from fuzz.target import Read, Target, require, stateless
from secformer.models.data.checkpoint import SINGLE, Checkpoint
from secformer.models.data.saved_tokenizer import Facts
from secformer.models.families.config import read_config
from secformer.models.families.table import architecture_of
from secformer.models.generation.stops import end_tokens
from secformer.models.ranges.profile import RangeProfile
from secformer.models.run.public import PublicModel
from secformer.models.run.share_file import ShareFile
from secformer.models.run.tables import FILE, Tables
from secformer.mpc.errors import SecformerError
from secformer.mpc.ring import WORD_BITS

MOST_WORDS = 1 << 20  # of a tensor that is read here: a description may name any size


def signed(facts: Any) -> Any:
    """A description with the digest that fits it."""
    rest = {key: value for key, value in facts.items() if key != "digest"}
    return rest | {"digest": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def _signed_inside(header: Any) -> Any:
    """The header of a share file, with a description inside that has its digest."""
    facts = header["__metadata__"]
    return header | {"__metadata__": facts | {"public": json.dumps(signed(json.loads(facts["public"])))}}


def _same(public: PublicModel) -> None:
    back = PublicModel.from_json(public.to_json(), "written again")
    require(back == public and back.digest == public.digest, "a description has one meaning")
    for use in (lambda: public.layout, lambda: public.columns, lambda: public.inputs, lambda: public.slots,
                lambda: public.series(4)):
        with suppress(SecformerError, LookupError):  # a length class that no book is for
            use()


def descriptions(data: bytes) -> None:
    _same(PublicModel.from_json(data, "the input"))


def tokenizer_facts(data: bytes) -> None:
    facts = Facts.from_json(data, "the input")
    require(Facts.from_json(facts.to_json(), "written again") == facts, "facts have one meaning")


@contextmanager
def profiles(folder: Path) -> Iterator[Read]:
    file, copy = folder / "profile.json", folder / "copy.json"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        profile = RangeProfile.load(file)
        profile.save(copy)
        require(RangeProfile.load(copy) == profile, "a profile has one meaning")
        for site in profile.sites:
            profile(site)
        profile.violations(profile)

    yield read


@contextmanager
def share_files(folder: Path) -> Iterator[Read]:
    file = folder / SINGLE

    def read(data: bytes) -> None:
        file.write_bytes(data)
        share = ShareFile(file)
        for name, tensor in share.layout.items():
            if np.prod(np.array(tensor.shape, dtype=float)) <= MOST_WORDS:
                require(share.shares.get(name).shape == tensor.shape, "a tensor has the shape that the model needs")

    yield read


@contextmanager
def tables(folder: Path) -> Iterator[Read]:
    public = PublicModel.load(_client())

    def read(data: bytes) -> None:
        (folder / FILE).write_bytes(data)
        Tables(folder, public)

    yield read


def _client() -> Path:
    """The folder of a valid description: the tables' target needs one that its examples belong to."""
    return Path(__file__).parent / "client"


@contextmanager
def checkpoints(folder: Path) -> Iterator[Read]:
    """Every tensor that a header names can be read, or is refused."""
    def read(data: bytes) -> None:
        (folder / SINGLE).write_bytes(data)
        checkpoint = Checkpoint(folder)
        for name in list(checkpoint._stored):
            try:
                values = checkpoint.read(name, checkpoint.shape(name))
            except SecformerError:
                continue
            require(np.isfinite(values).all() and values.shape == checkpoint.shape(name), "weights are finite")
            checkpoint.digest([name])

    yield read


@contextmanager
def folders(folder: Path) -> Iterator[Read]:
    """A model folder's JSON files. Input: an object that maps names of files to what stands in them."""
    place = folder / "model"

    def read(data: bytes) -> None:
        try:
            files = json.loads(data)
        except (ValueError, RecursionError):
            files = {"config.json": data.decode("utf-8", "replace")}
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, content in files.items() if isinstance(files, dict) else ():
            _put(place, name, content)
        for use in (_architecture, end_tokens, Checkpoint):
            try:
                use(place)
            except SecformerError as error:
                str(error).encode()

    yield read


def _put(place: Path, name: str, content: Any) -> None:
    path = place / name
    if "\0" in name or ".." in name or not path.is_relative_to(place) or len(name) > 100 or path == place:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8", "surrogatepass")
    except (OSError, UnicodeError):  # no name of a file
        pass


def _architecture(place: Path) -> None:
    architecture = architecture_of(read_config(place))
    architecture.facts()
    architecture.layout(WORD_BITS)
    hash(architecture.inputs)


TARGETS = (
    Target("profile", ("models/ranges/profile.py",), profiles, json_text()),
    Target("description", ("models/run/public.py", "mpc/ops/book.py", "models/families/table.py"),
           stateless(descriptions), json_text(signed), 1 << 16),
    Target("share-file", ("models/run/share_file.py", "models/run/public.py"), share_files, tensors(_signed_inside),
           1 << 16),
    Target("tables", ("models/run/tables.py", "models/data/checkpoint.py"), tables, tensors()),
    Target("tokenizer-facts", ("models/data/saved_tokenizer.py",), stateless(tokenizer_facts), json_text()),
    Target("checkpoint", ("models/data/checkpoint.py",), checkpoints, tensors()),
    Target("folder", ("models/families/config.py", "models/families/modules.py", "models/generation/stops.py",
                      "models/data/checkpoint.py"), folders, json_text()),
)
