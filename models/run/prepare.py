"""Prepares a run: chooses recipe, range profile and results, verifies the tensors, and rehearses.

In-process models and the owner's provisioning both start here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secformer.models.data.batch import Row
from secformer.models.data.checkpoint import PathLike
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import TABLE, Layout
from secformer.models.families.architecture import HIDDEN, Architecture
from secformer.models.families.decoder import Decoder
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import GUARD
from secformer.models.ranges.profile import FILE, OutdatedProfile, RangeProfile, builtin_rows, design_of, measure_rows
from secformer.models.ranges.rehearsal import rehearse, rehearse_values
from secformer.models.ranges.trained import require, trained_for
from secformer.models.run.options import Settings
from secformer.models.run.prefix import begin
from secformer.mpc.errors import ModelError, SettingsError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.recipes import EXACT, FAITHFUL, Recipe, recipe_named

UNMEASURED = ("there is no range profile for this recipe beside the checkpoint, so one was measured at load from "
              "built-in texts; if your texts differ from those, write a profile with: secformer profile")
MANY = 65_000  # words of a vocabulary, beyond which a note says what a private look-up costs
ELSEWHERE = ("the range profile beside the checkpoint was measured behind another public prefix, or on other weights, "
             "so one was measured at load from built-in texts; write another with: secformer profile")
OUTDATED = ("the range profile beside the checkpoint is of an earlier version, so one was measured at load from "
            "built-in texts; write a new one with: secformer profile")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A folder whose tensors were verified, with everything else that a run needs.

    profile  None for exact functions, which take no ranges
    source   where the profile came from
    names    names of the results to reveal
    layout   the tensors to share
    """

    folder: ModelFolder
    settings: Settings
    recipe: Recipe
    profile: RangeProfile | None
    source: str
    names: tuple[str, ...]
    layout: Layout
    notes: tuple[str, ...] = ()

    @property
    def ranges(self) -> RangeProfile:
        """The profile of a run on shares. Raises SettingsError for exact functions, which have none."""
        if self.profile is None:
            raise SettingsError("the recipe 'exact' is the plaintext reference and cannot run on shares; use "
                                "plain_model for it, or the recipe 'faithful'")
        return self.profile

    @property
    def architecture(self) -> Architecture:
        return self.folder.architecture


def prepare(folder: ModelFolder, recipe: Recipe | str, profile: PathLike | RangeProfile | None, settings: Settings, *,
            on_shares: bool) -> Prepared:
    """Chooses recipe, results and profile, and verifies the tensors. With `on_shares`, also rehearses the run.

    Raises ModelError, RangeError, SettingsError before anything is shared.
    """
    chosen = choose_recipe(recipe, folder, untrained=settings.untrained_recipe)
    begin(folder, settings.public_prefix)
    folder.verify(settings.fixed)
    names = result_names(folder.architecture, settings)
    found, source, notes = choose_profile(profile, folder, chosen, settings.fixed)
    layout = folder.layout(settings.fixed, private=settings.embedding == "private")
    if on_shares and TABLE in layout:
        notes += look_up_note(folder.architecture.inputs, layout[TABLE].width)
    prepared = Prepared(folder, settings, chosen, found, source, names, layout, (*folder.notes, *notes))
    if on_shares:
        rehearse(folder, chosen, prepared.ranges, settings.fixed, guarded=settings.guard != "off")
    return prepared


def look_up_note(inputs: TokenInputs, width: int) -> list[str]:
    """What the private look-up of a large vocabulary costs, and what avoids it. `width` is the table's, in bits."""
    if inputs.words <= MANY:
        return []
    each = inputs.columns * width / 8e6
    return [f"the vocabulary has {inputs.words:,} words, so to keep a token's id secret costs {each:.1f} MB of traffic "
            f"in each direction between the parties; embedding='client' avoids that, and gives the embedding tables, "
            f"which are a part of the weights, to every client"]


def choose_recipe(recipe: Recipe | str, folder: ModelFolder, *, untrained: bool = False) -> Recipe:
    """The recipe itself. "auto" is the recipe that the checkpoint was trained for, else FAITHFUL.

    Raises SettingsError for an unknown name and, unless `untrained`, for a recipe with other functions than the
    checkpoint was trained for.
    """
    spec = folder.architecture.spec
    if not isinstance(recipe, Recipe | str):
        raise SettingsError(f"recipe must be a Recipe or its name, got {type(recipe).__name__}")
    if recipe == "auto":
        return trained_for(spec) or FAITHFUL
    chosen = recipe_named(recipe) if isinstance(recipe, str) else recipe
    if not untrained:
        require(chosen, spec, folder.path)
    return chosen


def choose_profile(
    given: PathLike | RangeProfile | None, folder: ModelFolder, recipe: Recipe, fixed: FixedPoint,
    rows: Sequence[Row] = (),
) -> tuple[RangeProfile | None, str, list[str]]:
    """The range profile of a run, where the profile came from, and notes.

    The profile is the given one; else the file beside the checkpoint, if that suits the recipe; else one that is
    measured now, from the built-in texts and from `rows`. It is None for exact functions.

    Raises ModelError for a profile of other weights or of other functions, and RangeError where the model's values on
    the built-in texts leave the domain of the recipe's protocols.
    """
    if recipe is EXACT:
        return None, "none: exact functions take no ranges", []
    beside, design = folder.path / FILE, design_of(recipe).name
    if isinstance(given, RangeProfile):
        profile, source = given, "given"
    elif given is not None:
        profile, source = RangeProfile.load(given), str(given)
    else:
        found, note = _beside(folder, beside, design, recipe)
        if found is None:
            profile = measure_rows(folder, [*builtin_rows(folder), *rows], recipe=recipe)
            rehearse_values(folder, recipe, profile, fixed)
            return profile, "measured at load from built-in texts", [note]
        profile, source = found, str(beside)
    if profile.design != design:
        raise ModelError(f"the range profile ({source}) was measured with {profile.design!r} functions, but this "
                         f"recipe needs {design!r}; leave `profile` out to have one measured at load")
    if profile.model != folder.digest:
        raise ModelError(f"the range profile ({source}) was measured on other weights than those in {folder.path}, "
                         f"or behind another public prefix; measure a new one with: secformer profile")
    return profile, source, []


def _beside(folder: ModelFolder, file: Path, design: str, recipe: Recipe) -> tuple[RangeProfile | None, str]:
    """The profile beside a checkpoint, or None and a note that says why none was found there for the recipe."""
    if not file.is_file():
        return None, UNMEASURED
    try:
        profile = RangeProfile.load(file)
    except OutdatedProfile:
        return None, OUTDATED
    if isinstance(folder.architecture, Decoder) and profile.model != folder.digest:
        return None, ELSEWHERE
    return (profile, "") if profile.design == design and profile.holds(recipe.needs) else (None, UNMEASURED)


def result_names(architecture: Architecture, settings: Settings) -> tuple[str, ...]:
    """The names of the results to reveal: all that the architecture has, or its head's answer alone (of a
    sentence-transformers folder: the sentence embedding alone); and the guard's."""
    names, guard = tuple(architecture.results), () if settings.guard == "off" else (GUARD,)
    if settings.output != "head":
        return (*names, *guard)
    answers = tuple(name for name in names if name not in HIDDEN)
    if not answers:
        raise SettingsError(f"output='head' needs a model with a head; {architecture.spec.architecture} answers with "
                            f"hidden states, so use output='auto'")
    return (*answers, *guard)
