"""Recipes side by side on one model and its user's texts: how far each is from plaintext, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secformer.models.data.checkpoint import PathLike
from secformer.models.data.tokenizer import Texts
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import leaving
from secformer.models.ranges.trained import suits, trained_for
from secformer.models.run.local import SecureModel, plain_model
from secformer.models.run.options import settings_of
from secformer.models.run.output import SecureOutput
from secformer.models.run.prefix import begin
from secformer.models.run.prepare import choose_profile
from secformer.models.run.progress import Progress, part, shown, silent
from secformer.mpc.errors import SecformerError, SettingsError
from secformer.mpc.meter import COUNTERS, Cost
from secformer.protocols.recipes import EXACT, RECIPES, Recipe

PARTS = ("embedding", "gelu", "softmax", "layernorm", "linear", "other")
OWN = ("there is no range profile for this recipe beside the checkpoint, so one was measured from the built-in texts "
       "and from the texts of this comparison")
SHOWN = 3         # the most quantities outside their ranges that a row names


@dataclass(frozen=True, eq=False)
class Row:
    """One recipe on the texts. Where the recipe cannot run, `problem` says why, and the results are None.

    student     the recipe computes other functions than the checkpoint was trained for, so it needs another model
    agreement   fraction of labels (or positions, or words) that equal plaintext's; None where answers are numbers
    error       largest absolute difference between the answer and plaintext's
    cosine      lowest cosine between the answer and plaintext's, over the texts
    cost        of one run on all texts; excludes `provisioning`, which is paid once per model
    """

    recipe: str
    student: bool
    problem: str = ""
    output: SecureOutput | None = None
    agreement: float | None = None
    error: float | None = None
    cosine: float | None = None
    cost: Cost | None = None
    provisioning: Cost | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the recipes answered. `answer` names the result that is compared; `plain` is the output of `plain_model`."""

    model: str
    answer: str
    trained_for: str | None
    plain: SecureOutput
    rows: tuple[Row, ...]


def compare(model: PathLike, texts: Texts, recipes: Sequence[Recipe] | None = None, *, backend: str = "auto",
            runs: int = 2, progress: bool | Progress = False, **settings: Any) -> Comparison:
    """Runs the recipes securely on the texts, and the exact model in plaintext.

    recipes  default: all that run on shares
    runs     how often each recipe runs; the last run's cost counts, because code and constants are warm by then

    A recipe that cannot run on this model gets a row that says why. Raises ModelError and InputError where no recipe
    could run, and SettingsError for bad settings.
    """
    if runs < 1:
        raise SettingsError(f"runs must be at least 1, got {runs}")
    chosen = [r for r in RECIPES.values() if r is not EXACT] if recipes is None else list(recipes)
    folder = ModelFolder(model)
    begin(folder, settings_of(settings).public_prefix)
    plain = plain_model(model, texts, **settings)
    rows = []
    with shown(progress) as tell:
        for number, recipe in enumerate(chosen):
            told = part(_named(tell, recipe.name), number, len(chosen))
            rows.append(_row(folder, texts, recipe, plain, backend, runs, told, settings))
    return Comparison(str(folder.path), answer_name(plain), folder.architecture.spec.recipe, plain, tuple(rows))


def _row(folder: ModelFolder, texts: Texts, recipe: Recipe, plain: SecureOutput, backend: str, runs: int,
         tell: Progress, settings: dict[str, Any]) -> Row:
    student = False
    try:
        student = not suits(recipe, trained_for(folder.architecture.spec))
        chosen = settings_of(settings)
        rows = folder.tokenizer.rows(texts, truncation=chosen.truncation)
        ranges, _, measured = choose_profile(None, folder, recipe, chosen.fixed, rows)
        with SecureModel.from_pretrained(folder.path, recipe=recipe, backend=backend, profile=ranges,
                                         **settings | {"untrained_recipe": True}) as loaded:
            provisioning = loaded.provisioning
            for i in range(runs):
                out = loaded(texts, part(tell, i, runs))
        notes = [*out.notes, *([OWN] if measured else [])]
        if ranges is not None:
            found = leaving(folder, ranges, rows, recipe=recipe)
            notes += [f"outside the range profile, so the answer may be wrong: {each}" for each in found[:SHOWN]]
            notes += [f"and {len(found) - SHOWN} more are outside of it"] if len(found) > SHOWN else []
    except SecformerError as error:
        return Row(recipe.name, student, problem=f"{type(error).__name__}: {error}")
    mine, theirs = _vectors(out), _vectors(plain)
    return Row(recipe.name, student, "", out, _agreement(out, plain), _error(out, plain),
               min(_cosine(a, b) for a, b in zip(mine, theirs, strict=True)), out.cost, provisioning, tuple(notes))


def parts(cost: Cost) -> dict[str, Cost]:
    """A run's cost by PARTS, split as in the SecFormer paper's efficiency table. "embedding" excludes its LayerNorm."""
    kinds = cost.by_kind()
    found = {name: kinds.get(name, Cost(name)) for name in ("gelu", "softmax", "layernorm", "linear")}
    lookup = cost.children.get("embedding", Cost("embedding"))
    found["embedding"] = _less(lookup, list(lookup.children.values()), "embedding")
    found["other"] = _less(cost, list(found.values()), "other")
    return {name: found[name] for name in PARTS}


def _less(whole: Cost, some: list[Cost], name: str) -> Cost:
    # a time is the larger of the two parties' times, so parts may add up to a little more than the whole
    return Cost(name, **{key: max(0, getattr(whole, key) - sum(getattr(c, key) for c in some)) for key in COUNTERS})


# ---- answers ---------------------------------------------------------------------------------------------------------


def answer_name(out: SecureOutput) -> str:
    """The result that a user of this architecture reads."""
    if out.encoder_only:
        return "last_hidden_state" if out.sentence_embedding is None else "sentence_embedding"
    if out.prediction_logits is not None:
        return "prediction_logits, seq_relationship_logits"
    return "logits" if out.logits is not None else "start_logits, end_logits"


def _values(out: SecureOutput) -> list[np.ndarray]:
    found = [getattr(out, name) for name in answer_name(out).split(", ")]
    return [values for values in found if values is not None]


def _error(a: SecureOutput, b: SecureOutput) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(_values(a), _values(b), strict=True))


def _vectors(out: SecureOutput) -> list[np.ndarray]:
    """One vector per text: an encoder's embedding, else the flattened answer."""
    if out.encoder_only:
        return list(out.embeddings)
    return [np.concatenate(each) for each in zip(*([v.reshape(-1) for v in x] for x in _values(out)), strict=True)]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0.0 else float(np.array_equal(a, b))


def _agreement(a: SecureOutput, b: SecureOutput) -> float | None:
    mine, theirs = verdicts(a), verdicts(b)
    if not mine or not theirs:
        return None
    return sum(bool(x == y) for x, y in zip(mine, theirs, strict=True)) / len(mine)


def verdicts(out: SecureOutput) -> list[Any]:
    """What the answer says, as a list of labels, positions or words. The list is empty where the answer is numbers.

    There is one label per text or per token; or the start and the end of an answer; or the likeliest word per token.
    """
    if out.labels is not None:
        return [each for labels in out.labels for each in (labels if out.logits is not None and out.logits.ndim == 3
                                                           else [labels])]
    if out.start_logits is not None and out.end_logits is not None:
        return [*out.start_logits.argmax(-1).tolist(), *out.end_logits.argmax(-1).tolist()]
    words = out.logits if out.prediction_logits is None else out.prediction_logits
    if words is not None and words.ndim == 3:
        return list(words.argmax(-1)[out.attention_mask.astype(bool)].tolist())
    return []


def _named(tell: Progress, name: str) -> Progress:
    return tell if tell is silent else lambda what, done, total: tell(f"{name}: {what}", done, total)
