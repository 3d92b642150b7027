"""The owner's step: a folder becomes two share files, one per party, and a folder for clients.

One party's file holds a seed; by default, that is party 1's. The other file holds the encoded weights minus what the
seed expands to. Either file alone is uniformly random. Where clients hold the embedding tables, the share files leave
them out, and the clients' folder has them, not as shares.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from secformer.models.data.batch import blind_batch
from secformer.models.data.checkpoint import PathLike
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import GhostTensors, OwnerShares
from secformer.models.data.tensors import TABLE
from secformer.models.data.tokenizer_files import write_for_clients
from secformer.models.families.blocks import Forward
from secformer.models.families.caching import SLOTS, Timeline
from secformer.models.families.config import FILE as CONFIG
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import behind_embedding
from secformer.models.generation.stops import end_tokens, write_ends
from secformer.models.ranges.profile import RangeProfile
from secformer.models.run.options import Settings
from secformer.models.run.prepare import choose_recipe, prepare
from secformer.models.run.progress import Progress, silent
from secformer.models.run.public import CLIENT_FOLDER, FORMAT, PUBLIC, PublicModel, length_class
from secformer.models.run.served_steps import first_step
from secformer.models.run.share_file import share_file
from secformer.models.run.tables import write_tables
from secformer.mpc.errors import SettingsError
from secformer.mpc.functions import Series
from secformer.mpc.ops.book import Writer
from secformer.mpc.prg import fresh_seed
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.sessions.recorder import PlanRecorder, ghost
from secformer.protocols.recipes import EXACT, RECIPES, Recipe

SPARE = 4  # slots of a text's caches, for each token of the longest text: those that it goes back from keep theirs


def write_shares(model: PathLike, out: PathLike, *, recipe: Recipe | str = "auto",
                 profile: PathLike | RangeProfile | None = None, seed_rank: int = 1, output: str = "auto",
                 frac: int = 16, magnitude: int = 14, untrained_recipe: bool = False, guard: bool = True,
                 embedding: str = "private", public_prefix: str | Sequence[int] | None = "auto",
                 tell: Progress = silent) -> PublicModel:
    """Writes `out`/party0.safetensors, `out`/party1.safetensors and `out`/client/ from a Hugging Face folder.

    seed_rank  the party whose share file holds a seed of 32 bytes: 0 or 1
    output     "auto": clients receive all results that the architecture has; "head": the head's answer only
    frac, magnitude   the number format, as in `Settings`
    guard   whether values are checked, so that clients learn which answers cannot be trusted
    embedding  "private": the parties hold the embedding tables as shares, and look token ids up in secret; "client":
            every client gets the tables, which are part of the weights, and shares embedding sums
    public_prefix  of a causal language model: what every text begins with, as in `Settings`
    untrained_recipe  allow a recipe with other functions than the checkpoint was trained for, to measure cost only

    Raises ModelError, RangeError, SettingsError before anything is written, and OSError where a file cannot be written.
    """
    out = Path(out)
    if seed_rank not in (0, 1):
        raise SettingsError(f"seed_rank, the party whose share file holds the seed, must be 0 or 1, got {seed_rank!r}")
    if out.exists() and any(out.iterdir()):
        raise SettingsError(f"{out} is not empty; give a new folder, so that the shares of two models are not "
                            f"mixed")
    settings = Settings(frac=frac, magnitude=magnitude, output=output, untrained_recipe=untrained_recipe,
                        guard="mark" if guard else "off", embedding=embedding,
                        public_prefix=_frozen(public_prefix))
    folder = ModelFolder(model)
    tell("checking the model", 0, 3)
    public = describe(folder, recipe, profile, settings)
    ends = None if public.decoder is None else end_tokens(folder.path)
    tell("sharing the weights", 1, 3)
    seed, layout = fresh_seed(), public.layout
    owner = OwnerShares(layout, seed, folder.checkpoint, frac)
    out.mkdir(parents=True, exist_ok=True)
    _save(out / share_file(1 - seed_rank), {name: owner.get(name) for name in layout}, public, 1 - seed_rank)
    _save(out / share_file(seed_rank), {"seed": np.frombuffer(seed, dtype=np.uint8)}, public, seed_rank)
    tell("writing the clients' folder", 2, 3)
    client = out / CLIENT_FOLDER
    client.mkdir()
    (client / PUBLIC).write_text(public.to_json() + "\n", "utf-8")
    if not public.private:
        write_tables(client, folder, public)
    shutil.copyfile(folder.path / CONFIG, client / CONFIG)
    if ends is not None:
        write_ends(ends, client)
    write_for_clients(folder.path, client)
    tell("writing the clients' folder", 3, 3)
    return public


def _frozen(prefix: str | Sequence[int] | None) -> str | tuple[int, ...] | None:
    return prefix if prefix is None or isinstance(prefix, str) else tuple(prefix)


def describe(folder: ModelFolder, recipe: Recipe | str, profile: PathLike | RangeProfile | None,
             settings: Settings) -> PublicModel:
    """The public description of a folder. Raises ModelError, RangeError, SettingsError where a check fails."""
    chosen = choose_recipe(recipe, folder, untrained=settings.untrained_recipe)
    if chosen is EXACT or RECIPES.get(chosen.name) is not chosen:
        raise SettingsError(f"the recipe {chosen.name!r} cannot be provisioned: the parties look recipes up by name, "
                            f"and run them on shares; take another of the built-in recipes")
    prepared = prepare(folder, chosen, profile, settings, on_shares=True)
    salt = fresh_seed().hex()
    ranges = replace(prepared.ranges, model=hashlib.sha256(salt.encode()).hexdigest())
    private = settings.embedding == "private"
    width = prepared.layout[TABLE].width if private else WORD_BITS
    here = str(folder.path)  # the owner's own: no party and no client needs to know it
    notes = tuple(note.replace(here, "the model's folder") for note in prepared.notes)
    public = PublicModel(folder.architecture, chosen, ranges, settings.fixed, width, prepared.names, {}, salt, notes,
                         private)
    most, before = public.prefixed + public.inputs.longest, public.prefixed
    longest = sorted({min(2**k, most) for k in range(length_class(before + 1), length_class(most) + 1)})
    public = replace(public, books={length_class(n): _fitted(public, n - before) for n in longest})
    return replace(public, steps=_fitted_steps(public))


def _fitted(public: PublicModel, longest: int) -> tuple[Series, ...]:
    """The series that the model's program evaluates for a text of `longest` tokens. They depend on the ranges and
    on the length's class, never on the text."""
    tensors, written = GhostTensors(public.architecture.layout(None)), Writer()
    batch = blind_batch(np.array([longest]), np.ones((1, longest), dtype=bool))

    def program(s: PlanRecorder) -> None:
        forward = Forward(batch, load_weights(s, tensors), public.recipe, public.profile)
        with s.agreeing(written):
            behind_embedding(s, public.architecture, ghost((longest, public.inputs.hidden)), forward)

    PlanRecorder(public.fixed).record(program)
    return tuple(written.series)


def _fitted_steps(public: PublicModel) -> dict[int, tuple[Series, ...]]:
    """The series that a step of a text evaluates, by the class of its capacity. They depend on nothing else of it."""
    if public.decoder is None:
        return {}
    least, most = Timeline(public.prefixed).capacity(1), SPARE * max(public.decoder.spec.longest, SLOTS)
    return {size: _fitted_step(public, 2**size) for size in range(length_class(least), length_class(most) + 1)}


def _fitted_step(public: PublicModel, capacity: int) -> tuple[Series, ...]:
    tensors, written = GhostTensors(public.layout), Writer()

    def program(s: PlanRecorder) -> None:
        parameters = load_weights(s, tensors)
        with s.agreeing(written):
            first_step(public, s, parameters, (1, capacity, 1))

    PlanRecorder(public.fixed).record(program)
    return tuple(written.series)


def _save(path: Path, tensors: Mapping[str, np.ndarray], public: PublicModel, rank: int) -> None:
    from safetensors.numpy import save_file

    part = path.with_suffix(".part")
    part.touch(mode=0o600)
    save_file(dict(tensors), part, metadata={"format": FORMAT, "rank": str(rank), "public": public.to_json()})
    os.chmod(part, 0o600)
    part.replace(path)
