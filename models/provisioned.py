"""A provisioned model: two share files, one for each party, and the public description that all roles know.

The owner's step. Party 1's file (or party 0's) is a seed; the other holds the encoded weights minus what the seed
expands to, so either alone is uniform noise. The description's digest is drawn with fresh randomness: a digest of the
weights themselves would let a party test a guess of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from secformer.models.choices import PathLike, choose_profile, choose_recipe, result_names
from secformer.models.config import BertSpec
from secformer.models.encoder import Bert
from secformer.models.folder import ModelFolder
from secformer.models.heads import answer
from secformer.models.layout import TABLE, Layout, embedding_layout, encoder_layout
from secformer.models.options import Settings
from secformer.models.profile import RangeProfile
from secformer.models.progress import Progress, silent
from secformer.models.rehearsal import rehearse
from secformer.models.sharing import GhostTensors, Inputs, OwnerShares, SeedShares
from secformer.models.sharing import provision as bring
from secformer.models.tokens import Batch, Row
from secformer.mpc.errors import ModelError, SettingsError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Series
from secformer.mpc.ops.book import Writer, series_from_list, series_to_list
from secformer.mpc.prg import SEED_BYTES, fresh_seed
from secformer.mpc.ring import WORD_BITS, word_type
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.ranges import bits
from secformer.protocols.recipes import EXACT, Recipe, recipe_named

FORMAT = "secformer model 1"
PUBLIC = "public.json"
CLIENT = "client"  # folder for clients
TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json",
                   "added_tokens.json")


@dataclass(frozen=True)
class PublicModel:
    """What every role may know of a model: all but its weights.

    width   bits of the embedding table's words
    names   results that clients receive
    books   the numbers that the parties use for fitted functions (see `mpc/ops/book`): by the longest text's length
            class, in the program's order
    salt    random; makes the digest say nothing about the weights
    """

    spec: BertSpec
    recipe: Recipe
    profile: RangeProfile
    fixed: FixedPoint
    width: int
    names: tuple[str, ...]
    books: Mapping[int, tuple[Series, ...]]
    salt: str
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whole description: two roles that name the same one hold the same model."""
        return hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode()).hexdigest()

    @property
    def layout(self) -> Layout:
        """The secret tensors."""
        return embedding_layout(self.spec, self.width) | encoder_layout(self.spec)

    def series(self, longest: int) -> tuple[Series, ...]:
        """The series of a request whose longest text has so many tokens."""
        return self.books[length_class(longest)]

    def _facts(self) -> dict[str, Any]:
        each = list(dict.fromkeys(f for book in self.books.values() for f in book))
        books = {str(size): [each.index(f) for f in book] for size, book in self.books.items()}
        return {
            "format": FORMAT, "spec": asdict(self.spec), "recipe": self.recipe.name, "profile": self.profile.as_dict(),
            "frac": self.fixed.frac, "magnitude": self.fixed.magnitude, "ring": WORD_BITS, "width": self.width,
            "names": list(self.names), "series": series_to_list(each), "books": books, "salt": self.salt,
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        return json.dumps(self._facts() | {"digest": self.digest})

    @classmethod
    def from_json(cls, text: str | bytes, where: PathLike) -> Self:
        """Raises ModelError for anything that is not a whole description of this version."""
        try:
            facts = json.loads(text)
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']!r}, this version reads {FORMAT!r}")
            spec: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["spec"].items()}
            series = series_from_list(facts["series"])
            public = cls(
                BertSpec(**spec),
                recipe_named(facts["recipe"]), RangeProfile.of(facts["profile"], where),
                FixedPoint(facts["frac"], facts["magnitude"]), int(facts["width"]), tuple(facts["names"]),
                {int(size): tuple(series[i] for i in book) for size, book in facts["books"].items()},
                str(facts["salt"]), tuple(facts["notes"]),
            )
            if public.digest != facts["digest"]:
                raise ValueError("its digest does not fit its content")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{where} is no description of a provisioned model ({type(error).__name__}: {error}); "
                             f"make it with: secformer provision") from error
        return public

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """From the folder for clients."""
        path = Path(folder) / PUBLIC
        try:
            return cls.from_json(path.read_bytes(), path)
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}; `secformer provision` writes this folder for "
                             f"clients") from error


def provision(model: PathLike, out: PathLike, *, recipe: Recipe | str = "auto",
              profile: PathLike | RangeProfile | None = None, seed_rank: int = 1, output: str = "auto", frac: int = 16,
              magnitude: int = 14, untrained_recipe: bool = False, tell: Progress = silent) -> PublicModel:
    """Writes `out`/party0.safetensors, `out`/party1.safetensors and `out`/client/ from a Hugging Face folder.

    seed_rank  whose share file is a seed of 32 bytes: 0 or 1
    untrained_recipe  allow a recipe with other functions than the checkpoint was trained for
    output     "auto": clients receive everything that the architecture has; "head": the head's answer only

    Raises ModelError, RangeError, SettingsError before anything is written; OSError.
    """
    out = Path(out)
    if seed_rank not in (0, 1):
        raise SettingsError(f"the party whose file is a seed is 0 or 1, got {seed_rank!r}")
    if out.exists() and any(out.iterdir()):
        raise SettingsError(f"{out} is not empty; give a new folder: shares of one model must not be mixed with "
                            f"another's")
    settings = Settings(frac=frac, magnitude=magnitude, output=output, untrained_recipe=untrained_recipe)
    tell("checking the model", 0, 3)
    public, folder = describe(ModelFolder(model), recipe, profile, settings)
    tell("sharing the weights", 1, 3)
    seed, layout = fresh_seed(), public.layout
    owner = OwnerShares(layout, seed, folder.checkpoint, frac)
    out.mkdir(parents=True, exist_ok=True)
    _save(out / share_file(1 - seed_rank), {name: owner.get(name) for name in layout}, public, 1 - seed_rank)
    _save(out / share_file(seed_rank), {"seed": np.frombuffer(seed, dtype=np.uint8)}, public, seed_rank)
    tell("writing the clients' folder", 2, 3)
    client = out / CLIENT
    client.mkdir()
    (client / PUBLIC).write_text(public.to_json() + "\n", "utf-8")
    for name in TOKENIZER_FILES:
        if (folder.path / name).is_file():
            shutil.copyfile(folder.path / name, client / name)
    tell("writing the clients' folder", 3, 3)
    return public


def share_file(rank: int) -> str:
    return f"party{rank}.safetensors"


def describe(folder: ModelFolder, recipe: Recipe | str, profile: PathLike | RangeProfile | None,
             settings: Settings) -> tuple[PublicModel, ModelFolder]:
    """The public description of a folder, all checks made; the folder for the weights."""
    chosen = choose_recipe(recipe, folder, untrained=settings.untrained_recipe)
    if chosen is EXACT or _known(chosen) is not chosen:
        raise SettingsError(f"the recipe {chosen.name!r} cannot be provisioned: the parties know recipes by name, and "
                            f"run them on shares")
    folder.verify(settings.fixed)
    found, _, notes = choose_profile(profile, folder, chosen, settings.fixed)
    if found is None:
        raise SettingsError("a provisioned model needs a range profile; leave `profile` out to have one measured")
    rehearse(folder, chosen, found, settings.fixed)
    salt = fresh_seed().hex()
    layout = folder.layout(settings.fixed, private=True)
    public = PublicModel(
        folder.spec, chosen, replace(found, model=hashlib.sha256(salt.encode()).hexdigest()), settings.fixed,
        layout[TABLE].width, tuple(result_names(folder.spec, settings)), {}, salt, (*folder.notes, *notes),
    )
    longest = {min(2**k, folder.spec.positions) for k in range(length_class(folder.spec.positions) + 1)}
    return replace(public, books={length_class(n): _fitted(public, n) for n in sorted(longest)}), folder


def _known(recipe: Recipe) -> Recipe | None:
    try:
        return recipe_named(recipe.name)
    except SettingsError:
        return None


def length_class(longest: int) -> int:
    """The bits of a length: what a program's public numbers depend on beside the model."""
    return bits(longest)


def _fitted(public: PublicModel, longest: int) -> tuple[Series, ...]:
    """The series that the model's program evaluates for a text of that length. They depend on the ranges and on the
    length's class, never on the text."""
    layout, written = encoder_layout(public.spec), Writer()
    nothing = np.zeros(longest, dtype=np.int64)
    batch = Batch((Row(nothing, nothing, nothing + 1),))

    def program(s: PlanRecorder) -> None:
        bert = Bert(public.spec, bring(s, GhostTensors(layout), layout), public.recipe, public.profile)
        with s.agreeing(written):
            answer(s, s.accept(ghost((longest, public.spec.hidden))), batch, bert)

    PlanRecorder(public.fixed).record(program)
    return tuple(written.series)


def _save(path: Path, tensors: Mapping[str, np.ndarray], public: PublicModel, rank: int) -> None:
    from safetensors.numpy import save_file

    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    save_file(dict(tensors), part, metadata={"format": FORMAT, "rank": str(rank), "public": public.to_json()})
    os.chmod(part, 0o600)
    part.replace(path)


class ShareFile:
    """One party's share file: its rank, the public description, and the shares tensor by tensor."""

    def __init__(self, path: PathLike):
        """Reads the header. Raises ModelError for anything but a share file of this version."""
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        try:
            file: Any = safe_open(str(self.path), framework="np")
            metadata: dict[str, str] = file.metadata() or {}
            names = set(file.keys())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is not a readable share file: {error}; make it with: secformer "
                             f"provision") from error
        if metadata.get("format") != FORMAT or metadata.get("rank") not in ("0", "1"):
            raise ModelError(f"{path} is no share file of this version (format {metadata.get('format')!r}, rank "
                             f"{metadata.get('rank')!r}); make it with: secformer provision")
        self._file, self.rank = file, int(metadata["rank"])
        self.public = PublicModel.from_json(metadata["public"], path)
        self.shares: Inputs = self._seed() if names == {"seed"} else self
        self._layout = self.public.layout
        if self.shares is self and (odd := sorted(names ^ set(self._layout))):
            raise ModelError(f"{path} lacks or adds tensors: {', '.join(odd[:4])}; make it again: secformer provision")

    def _seed(self) -> SeedShares:
        seed = self._file.get_tensor("seed")
        if seed.dtype != np.uint8 or seed.shape != (SEED_BYTES,):
            raise ModelError(f"{self.path}: a seed has {SEED_BYTES} bytes, got {seed.dtype} {seed.shape}")
        return SeedShares(self.public.layout, seed.tobytes())

    def get(self, name: str) -> np.ndarray:
        """This party's words of a tensor."""
        words, tensor = np.asarray(self._file.get_tensor(name)), self._layout[name]
        dtype = word_type(tensor.width)
        if words.shape != tensor.shape or words.dtype != dtype:
            raise ModelError(f"{self.path}: tensor {name!r} is {words.dtype} {words.shape}, expected "
                             f"{np.dtype(dtype)} {tensor.shape}; make it again: secformer provision")
        return words
