"""What a run goes by where the user leaves it open: the recipe, the range profile, the results to reveal."""

from __future__ import annotations

import os

from secformer.models.config import ENCODER, BertSpec
from secformer.models.design import require, trained_for
from secformer.models.folder import ModelFolder
from secformer.models.options import Settings
from secformer.models.profile import FILE, RangeProfile, design_of, measure
from secformer.models.rehearsal import rehearse_values
from secformer.mpc.errors import ModelError, SettingsError
from secformer.mpc.fixed import FixedPoint
from secformer.protocols.recipes import EXACT, FAITHFUL, Recipe, recipe_named

PathLike = str | os.PathLike[str]

UNMEASURED = ("no range profile for this recipe beside the checkpoint: measured at load from built-in texts; for texts "
              "unlike those, write one with: secformer profile")


def choose_recipe(recipe: Recipe | str, folder: ModelFolder, *, untrained: bool = False) -> Recipe:
    """The recipe meant: "auto" is what the checkpoint says, else FAITHFUL.

    Raises SettingsError for an unknown name and, unless `untrained`, for a recipe with other functions than the
    checkpoint was trained for.
    """
    if not isinstance(recipe, Recipe | str):
        raise SettingsError(f"recipe must be a Recipe or its name, got {type(recipe).__name__}")
    if recipe == "auto":
        return trained_for(folder.spec) or FAITHFUL
    chosen = recipe_named(recipe) if isinstance(recipe, str) else recipe
    if not untrained:
        require(chosen, folder.spec, folder.path)
    return chosen


def choose_profile(
    given: PathLike | RangeProfile | None, folder: ModelFolder, recipe: Recipe, fixed: FixedPoint
) -> tuple[RangeProfile | None, str, list[str]]:
    """The profile to compute by, where it came from, and notes: the given one, else the file beside the checkpoint if
    it suits the recipe, else one measured now; None for exact functions.

    Raises ModelError for a profile of other weights or of other functions, and RangeError where the model's values on
    the built-in texts leave what the recipe's protocols promise.
    """
    if recipe is EXACT:
        return None, "none: exact functions take no ranges", []
    beside, design = folder.path / FILE, design_of(recipe).name
    if isinstance(given, RangeProfile):
        profile, source = given, "given"
    elif given is not None:
        profile, source = RangeProfile.load(given), str(given)
    elif beside.is_file() and (profile := RangeProfile.load(beside)).design == design:
        source = str(beside)
    else:
        profile = measure(folder, recipe=recipe)
        rehearse_values(folder, recipe, profile, fixed)
        return profile, "measured at load from built-in texts", [UNMEASURED]
    if profile.design != design:
        raise ModelError(f"the range profile ({source}) was measured with {profile.design!r} functions, this recipe "
                         f"needs {design!r}; leave `profile` out to have one measured at load")
    if profile.model != folder.digest:
        raise ModelError(f"the range profile ({source}) was measured on other weights than those in {folder.path}; "
                         f"measure again: secformer profile")
    return profile, source, []


def result_names(spec: BertSpec, settings: Settings) -> list[str]:
    """The results to reveal: all that the architecture has, or its head's answer alone."""
    head = [] if spec.architecture == ENCODER else ["logits"]
    if settings.output == "head":
        if not head:
            raise SettingsError("output='head' needs a model with a head; BertModel answers with hidden states")
        return head
    return ["last_hidden_state", *(["pooler_output"] if spec.pooler else []), *head]
