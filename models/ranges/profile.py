"""Range profiles: what values a model's call sites meet, measured with the float64 twin.

Windows, periods, harmonics and iteration counts are chosen from a profile; a value outside of it gives a wrong result
silently, as in every fixed-point system. A profile is public.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch, Row
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import PlainTensors
from secformer.models.data.tokenizer import Texts
from secformer.models.families.blocks import Forward
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import behind_embedding
from secformer.models.ranges.samples import ODD, PAIRS, PROSE, long_text
from secformer.mpc.errors import ModelError, RangeError, SettingsError
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL, Recipe, recipe_named
from secformer.protocols.softmax import quad_sum, relu_sum

FILE = "secformer_profile.json"
FORMAT = 1
MARGIN = 1.25
KEYS = ("format", "model", "design", "texts", "tokens", "margin", "sites")
# positive quantities: widened by a factor, the others by a distance
RATIOS = ("variance", "quad_sum", "relu_sum", "exp_sum")
SLACK = 0.25  # distance added to both ends, so that a range measured as a point is not one


@dataclass(frozen=True)
class Violation:
    """A quantity that leaves its range: what was met, and what the profile allows."""

    site: str
    quantity: str
    found: Range
    allowed: Range

    def __str__(self) -> str:
        return (f"{self.site} {self.quantity}: {self.found.low:.4g} to {self.found.high:.4g}, "
                f"profile allows {self.allowed.low:.4g} to {self.allowed.high:.4g}")


@dataclass(frozen=True)
class RangeProfile:
    """Measured ranges by call site and quantity, and the margin that they are widened by when they are used.

    model   digest of the tensors that they were measured on
    design  whose functions the twin computed with: "exact", or a recipe that means other functions than exact ones
    """

    model: str
    design: str
    texts: int
    tokens: int
    margin: float = MARGIN
    sites: Mapping[str, Mapping[str, Range]] = field(default_factory=dict)

    def __call__(self, site: str) -> Site:
        """The widened ranges of a call site."""
        if site not in self.sites:
            raise SettingsError(f"the range profile has no site {site!r}; measure this model again: secformer profile")
        return {quantity: widened(quantity, found, self.margin) for quantity, found in self.sites[site].items()}

    def violations(self, measured: RangeProfile) -> list[Violation]:
        """Where another measurement leaves this profile's widened ranges."""
        found = []
        for site, quantities in measured.sites.items():
            allowed = self(site)
            found += [
                Violation(site, quantity, r, allowed[quantity])
                for quantity, r in quantities.items()
                if quantity not in allowed or r.low < allowed[quantity].low or r.high > allowed[quantity].high
            ]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and names, for JSON; `of` is the inverse."""
        sites = {s: {q: [r.low, r.high] for q, r in quantities.items()} for s, quantities in self.sites.items()}
        return {"format": FORMAT, "model": self.model, "design": self.design, "texts": self.texts,
                "tokens": self.tokens, "margin": self.margin, "sites": sites}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON; a file is there whole or not at all."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.as_dict(), indent=1) + "\n", "utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RangeProfile:
        """Reads JSON. Raises ModelError for a file that is not a profile of this version."""
        try:
            facts = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read the range profile {path}: {error}") from error
        return cls.of(facts, path)

    @classmethod
    def of(cls, facts: Any, path: str | os.PathLike[str]) -> RangeProfile:
        """A profile from plain numbers and names; `path` is where they come from. Raises ModelError."""
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise ModelError(f"{path} is not a range profile of format {FORMAT}; write one with: secformer profile")
        if set(facts) != set(KEYS):
            odd = sorted(set(facts) ^ set(KEYS))
            raise ModelError(f"{path}: a range profile has the keys {', '.join(KEYS)}; unknown or missing: "
                             f"{', '.join(odd)}")
        try:
            sites = {str(s): {str(q): Range(float(low), float(high)) for q, (low, high) in quantities.items()}
                     for s, quantities in facts["sites"].items()}
            margin = float(facts["margin"])
            profile = cls(str(facts["model"]), str(facts["design"]), int(facts["texts"]), int(facts["tokens"]),
                          margin, sites)
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path}: a range profile maps sites to quantities to [low, high]: {error}") from error
        ends = [end for quantities in sites.values() for r in quantities.values() for end in (r.low, r.high)]
        if not np.isfinite(ends).all() or not 1.0 <= margin < 100.0:
            raise ModelError(f"{path}: ranges must be finite and the margin at least 1; measure again")
        return profile


def widened(quantity: str, r: Range, margin: float) -> Range:
    """A range with its margin: positive quantities by a factor at both ends (which also allows for longer texts),
    others by a share of their width and a little more. A spread never rises above 0."""
    if quantity in RATIOS:
        factor = 2.0 * margin - 1.0
        lowest = min(1.0, r.low) if quantity == "exp_sum" else 0.0  # the row maximum itself adds 1
        return Range(max(lowest, r.low / factor), r.high * factor)
    more = (margin - 1.0) * (r.high - r.low) / 2.0 + (SLACK if margin > 1.0 else 0.0)
    if quantity == "spread":  # weights so far below a row's largest are 0 in any case
        return Range(r.low - more, r.high)
    return Range(r.low - more, r.high + more)


def design_of(recipe: Recipe) -> Recipe:
    """Whose functions a profile for `recipe` is measured with: exact ones for those that stand in for exact ones."""
    return EXACT if recipe is FAITHFUL else recipe


def measure(folder: ModelFolder, texts: Texts | None = None, *, recipe: Recipe | None = None,
            margin: float = MARGIN, truncation: bool = True) -> RangeProfile:
    """Runs texts (default: the built-in ones) through the float64 twin, each text by itself so that padding counts for
    nothing. `recipe` (default: what the checkpoint was trained for) says whose functions: see `design_of`.

    Raises RangeError where values are not finite, InputError for bad texts.
    """
    rows = builtin_rows(folder) if texts is None else folder.tokenizer.rows(texts, truncation=truncation)
    return measure_rows(folder, rows, recipe=recipe, margin=margin)


def measure_rows(folder: ModelFolder, rows: Sequence[Row], *, recipe: Recipe | None = None,
                 margin: float = MARGIN) -> RangeProfile:
    """`measure` of tokenised texts."""
    architecture, named = folder.architecture, folder.architecture.spec.recipe
    design = design_of(recipe if recipe is not None else recipe_named(named) if named else FAITHFUL)
    layout = folder.layout(PlainSession().fixed, private=False)
    s = PlainSession(strict=False)
    probes: dict[str, Probe] = {}
    parameters = load_weights(s, PlainTensors(layout, folder.checkpoint))
    for row in rows:
        batch = Batch((row,))
        forward = Forward(batch, parameters, observed(design), lambda site: probes.setdefault(site, Probe(margin)))
        with np.errstate(over="ignore", invalid="ignore"):
            behind_embedding(s, architecture, folder.embeddings(batch), forward)
    for site, quantities in probes.items():
        if not np.isfinite([e for r in quantities.values() for e in (r.low, r.high)]).all():
            raise RangeError(f"{folder.path}: values at {site} overflow even in float64; this model cannot be run")
    return RangeProfile(folder.digest, design.name, len(rows), sum(map(len, rows)), margin,
                        {site: dict(probe) for site, probe in probes.items()})


def builtin_rows(folder: ModelFolder) -> list[Row]:
    """The built-in texts, and one that is as long as the model takes."""
    rows = folder.tokenizer.rows
    single = [*PROSE, *ODD, long_text(folder.architecture.inputs.longest)]
    return [*rows(single, truncation=True), *rows(PAIRS, truncation=True)]


class Probe(dict[str, Range]):
    """A call site that remembers the extremes of what it met."""

    def __init__(self, margin: float):
        super().__init__()
        self.margin = margin

    def sofar(self) -> Site:
        """The ranges met so far, widened: what a recipe may count on for the values that were just seen."""
        return {quantity: widened(quantity, r, self.margin) for quantity, r in self.items()}

    def see(self, quantity: str, values: np.ndarray) -> None:
        low, high = float(values.min()), float(values.max())
        if quantity in self:
            low, high = min(low, self[quantity].low), max(high, self[quantity].high)
        self[quantity] = Range(low, high)


def observed(recipe: Recipe) -> Recipe:
    """The recipe with functions that first tell their site, a Probe, what they are given, and then compute with the
    ranges met so far."""

    def gelu(s: Session, x: Share, at: Site) -> Share:
        return recipe.gelu(s, x, _seen(at, input=x.data))

    def tanh(s: Session, x: Share, at: Site) -> Share:
        return recipe.tanh(s, x, _seen(at, input=x.data))

    def layernorm(s: Session, x: Share, gamma: Share, beta: Share, eps: float, at: Site) -> Share:
        return recipe.layernorm(s, x, gamma, beta, eps, _seen(at, variance=x.data.var(axis=-1)))

    def softmax(s: Session, scores: Share, values: Share, mask: np.ndarray, at: Site) -> Share:
        for each, attend in zip(scores.data, mask, strict=True):
            some = each[..., attend]  # (H, T, n): attended columns
            spread = some - some.max(axis=-1, keepdims=True)
            _seen(at, score=some, spread=spread, exp_sum=np.exp(spread).sum(axis=-1))
            if recipe is not EXACT:  # exact softmax has no 2Quad and no 2ReLU sums
                _seen(at, quad_sum=quad_sum(some), relu_sum=relu_sum(some))
        return recipe.softmax(s, scores, values, mask, _seen(at))

    return replace(recipe, gelu=gelu, tanh=tanh, layernorm=layernorm, softmax=softmax)


def _seen(at: Site, **quantities: np.ndarray) -> Site:
    if not isinstance(at, Probe):
        return at
    for quantity, values in quantities.items():
        at.see(quantity, values)
    return at.sofar()
