"""Range profiles: what values a model's call sites meet, measured with the float64 twin.

Windows, periods, harmonics and iteration counts are chosen from a profile; a value outside of it gives a wrong
result, which the guard notices (see `mpc/guarding`). A profile is public.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from secformer.models.data.batch import Batch, Row, batches
from secformer.models.data.checkpoint import PathLike
from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import PlainTensors
from secformer.models.data.tokenizer import Texts, id_rows
from secformer.models.families.attending import Causal
from secformer.models.families.blocks import Forward
from secformer.models.families.decoder import Decoder
from secformer.models.families.folder import ModelFolder
from secformer.models.families.heads import Head
from secformer.models.ranges.observe import observed
from secformer.models.ranges.samples import (
    CONVERSATIONS,
    MOST_MEASURED,
    ODD,
    PAIRS,
    PROSE,
    long_text,
    repetitions,
    token_rows,
)
from secformer.mpc.errors import InputError, ModelError, RangeError, SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.strict_json import read_own
from secformer.protocols.quantities import DISTANCE, KNOWN, LOG_MEAN, MAXIMUM, MOST, ROW_SUM, SLACK, Quantity, Widening
from secformer.protocols.ranges import Range, Site
from secformer.protocols.recipes import EXACT, FAITHFUL, Needs, Recipe, recipe_named

FILE = "secformer_profile.json"
FORMAT = 3  # 1 lacks what LayerNorms and attention's values reach, 2 row sums and what rows of scores reach
MARGIN = 1.25
MOST_FACTOR = 1e6  # by which a positive range is said to be missed, at most
SPARED = frozenset({ROW_SUM.name, MAXIMUM.name, LOG_MEAN.name})  # older files lack these: protocols take more rounds
WORDY = (Head.MASKED, Head.CAUSAL, Head.PRETRAINING)  # a logit per token and word
MOST_TOKENS = 1024      # per batch while ranges are measured; bounds memory
MOST_LOGITS = 1 << 25   # the same, of models that answer with a logit per token and word
KEYS = ("format", "model", "design", "texts", "tokens", "margin", "sites")
WIDENINGS = "widenings"  # a further key, where a recipe declares quantities that the package does not know


class OutdatedProfile(ModelError):
    """A range profile of an earlier version, which lacks quantities that protocols need by now."""


@dataclass(frozen=True)
class Violation:
    """A quantity that leaves its range: what was met, what the profile allows, and in which text (from 0), if known."""

    site: str
    quantity: str
    found: Range
    allowed: Range
    text: int | None = None

    @property
    def factor(self) -> float:
        """How many times too far it goes: for positive ranges from 0, else from the middle of what is allowed."""
        low, high = self.allowed.low, self.allowed.high
        if low > 0.0:
            return max(self.found.high / high, low / max(self.found.low, low / MOST_FACTOR))
        middle, half = (low + high) / 2.0, max((high - low) / 2.0, SLACK)
        return max(self.found.high - middle, middle - self.found.low) / half

    def __str__(self) -> str:
        which = "" if self.text is None else f"text {self.text}: "
        return (f"{which}{self.site} {self.quantity}: {self.found.low:.4g} to {self.found.high:.4g}, profile allows "
                f"{self.allowed.low:.4g} to {self.allowed.high:.4g} ({self.factor:.3g} times that)")


@dataclass(frozen=True)
class RangeProfile:
    """Measured ranges by call site and quantity, and the margin that they are widened by when they are used.

    model      digest of the tensors that they were measured on
    design     "exact" if the recipe is faithful, else the recipe's name: the functions that the twin ran
    widenings  how quantities are widened that the package does not know; known ones have their own
    """

    model: str
    design: str
    texts: int
    tokens: int
    margin: float = MARGIN
    sites: Mapping[str, Mapping[str, Range]] = field(default_factory=dict)
    widenings: Mapping[str, Widening] = field(default_factory=dict)

    def __call__(self, site: str) -> Site:
        """The widened ranges of a call site. Raises SettingsError for a site that was not measured."""
        if site not in self.sites:
            raise SettingsError(f"the range profile has no site {site!r}; measure this model again: secformer profile")
        return {name: self._widening(name)(found, self.margin) for name, found in self.sites[site].items()}

    def _widening(self, name: str) -> Widening:
        return KNOWN[name].widening if name in KNOWN else self.widenings.get(name, DISTANCE)

    def holds(self, needs: Needs) -> bool:
        """Whether the quantities that only a recipe's own functions know were measured."""
        own = {q.name for quantities in needs.values() for q in quantities if q.name not in KNOWN}
        return own <= {name for quantities in self.sites.values() for name in quantities}

    def violations(self, measured: RangeProfile) -> list[Violation]:
        """Where another measurement leaves this profile's widened ranges. Raises SettingsError where this profile lacks
        a site or a quantity of the other."""
        found = []
        for site, quantities in measured.sites.items():
            allowed = self(site)
            for name, r in quantities.items():
                if name == MOST.name:
                    continue  # a fact of the weights, which no text can leave
                if name not in allowed:
                    if name in SPARED:
                        continue
                    raise SettingsError(f"the range profile has no {name!r} at {site}, which the recipe needs; measure "
                                        f"this model again: secformer profile")
                if r.low < allowed[name].low or r.high > allowed[name].high:
                    found.append(Violation(site, name, r, allowed[name]))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and names, for JSON; `of` is the inverse."""
        sites = {s: {q: [r.low, r.high] for q, r in quantities.items()} for s, quantities in self.sites.items()}
        facts = {"format": FORMAT, "model": self.model, "design": self.design, "texts": self.texts,
                 "tokens": self.tokens, "margin": self.margin, "sites": sites}
        return facts | ({WIDENINGS: {q: _facts(w) for q, w in self.widenings.items()}} if self.widenings else {})

    def save(self, path: PathLike) -> None:
        """Writes JSON. The file appears whole or not at all."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.as_dict(), indent=1) + "\n", "utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: PathLike) -> RangeProfile:
        """Reads JSON. Raises ModelError for a file that is not a profile of this version: OutdatedProfile for one of an
        earlier version."""
        try:
            facts = read_own(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read the range profile {path}: {error}") from error
        return cls.of(facts, path)

    @classmethod
    def of(cls, facts: Any, path: PathLike) -> RangeProfile:
        """A profile from plain numbers and names; `path` is where they come from. Raises ModelError."""
        if isinstance(facts, dict) and facts.get("format") in range(1, FORMAT):
            raise OutdatedProfile(f"the range profile {path} has format {facts['format']} of an earlier version, which "
                                  f"lacks quantities that are needed now; measure a new one with: secformer profile "
                                  f"(and provision models again that hold the old one: secformer provision)")
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise ModelError(f"{path} is not a range profile of format {FORMAT}; write one with: secformer profile")
        if set(facts) - {WIDENINGS} != set(KEYS):
            odd = sorted((set(facts) - {WIDENINGS}) ^ set(KEYS))
            raise ModelError(f"{path}: a range profile has the keys {', '.join(KEYS)}; unknown or missing: "
                             f"{', '.join(odd)}")
        try:
            sites = {str(s): {str(q): Range(float(low), float(high)) for q, (low, high) in quantities.items()}
                     for s, quantities in facts["sites"].items()}
            margin = float(facts["margin"])
            widenings = {str(q): _widening(w) for q, w in facts.get(WIDENINGS, {}).items()}
            profile = cls(str(facts["model"]), str(facts["design"]), int(facts["texts"]), int(facts["tokens"]),
                          margin, sites, widenings)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(f"{path}: a range profile maps sites to quantities to [low, high], and {WIDENINGS} to "
                             f"their rules: {error}") from error
        ends = [end for quantities in sites.values() for r in quantities.values() for end in (r.low, r.high)]
        if not np.isfinite(ends).all() or not 1.0 <= margin < 100.0:
            raise ModelError(f"{path}: ranges must be finite and the margin at least 1; measure again")
        return profile


def _facts(widening: Widening) -> dict[str, bool | float]:
    """A widening as plain numbers, without infinite bounds. `_widening` is the inverse."""
    bounds = {"least": widening.least, "most": widening.most}
    rules = {"ratio": widening.ratio, "fixed": widening.fixed}
    return rules | {key: bound for key, bound in bounds.items() if math.isfinite(bound)}


def _widening(facts: Mapping[str, Any]) -> Widening:
    """Raises ValueError or TypeError for anything else than what `_facts` gives."""
    ratio, fixed = facts.get("ratio"), facts.get("fixed")
    bounds = {key: float(bound) for key, bound in facts.items() if key not in ("ratio", "fixed")}
    if not (isinstance(ratio, bool) and isinstance(fixed, bool) and all(map(math.isfinite, bounds.values()))):
        raise ValueError(f"not a rule for widening: {facts}")
    return Widening(ratio, fixed=fixed, **bounds)


def design_of(recipe: Recipe) -> Recipe:
    """The recipe whose functions run while ranges for `recipe` are measured: the exact ones if `recipe` is faithful."""
    return EXACT if recipe.faithful else recipe


def measure(folder: ModelFolder, texts: Texts | None = None, *, recipe: Recipe | None = None,
            margin: float = MARGIN, truncation: bool = True) -> RangeProfile:
    """Runs texts (default: the built-in ones) through the float64 twin, together where they have the same length, so
    that there is no padding.

    recipe  decides which quantities are measured, and which functions run (see `design_of`); default: the recipe that
            the checkpoint was trained for, else FAITHFUL

    Raises RangeError where values are not finite, InputError for bad texts, SettingsError for a recipe whose functions
    declare different quantities under one name.
    """
    rows = builtin_rows(folder) if texts is None else folder.tokenizer.rows(texts, truncation=truncation)
    return measure_rows(folder, rows, recipe=recipe, margin=margin)


def measure_rows(folder: ModelFolder, rows: Sequence[Row], *, recipe: Recipe | None = None,
                 margin: float = MARGIN) -> RangeProfile:
    """`measure` of tokenised texts."""
    architecture, named = folder.architecture, folder.architecture.spec.recipe
    wanted = recipe if recipe is not None else recipe_named(named) if named else FAITHFUL
    design, widenings = design_of(wanted), _unknown(wanted.needs)
    layout = folder.layout(PlainSession().fixed, private=False)
    s = PlainSession(strict=False)
    probes: dict[str, Probe] = {}
    parameters = load_weights(s, PlainTensors(layout, folder.checkpoint))
    watched = observed(design, np, probe, asking=wanted)
    words = architecture.inputs.words if architecture.head in WORDY else 1
    for batch in _of_one_length(rows, min(MOST_TOKENS, max(1, MOST_LOGITS // words))):
        forward = Forward(batch, parameters, watched, lambda site: probes.setdefault(site, Probe(margin)))
        with np.errstate(over="ignore", invalid="ignore"):
            x = s.accept(folder.embeddings(batch))
            if isinstance(architecture, Decoder):  # its head has no site, and takes as long as many layers
                architecture.hidden(s, x, forward, Causal(batch, len(architecture.spec.prefix)))
            else:
                architecture.answer(s, x, forward)
    for site, quantities in probes.items():
        if not np.isfinite([e for r in quantities.values() for e in (r.low, r.high)]).all():
            raise RangeError(f"{folder.path}: values at {site} overflow even in float64; this model cannot be run")
    certain = architecture.certain(PlainTensors(layout, folder.checkpoint).get, wanted)
    bounds = {site: {MOST.name: Range(most, most)} for site, most in certain.items()}
    return RangeProfile(folder.digest, design.name, len(rows), sum(map(len, rows)), margin,
                        {site: {**found, **bounds.get(site, {})} for site, found in probes.items()}, widenings)


def leaving(folder: ModelFolder, profile: RangeProfile, rows: Sequence[Row], *,
            recipe: Recipe | None = None) -> list[Violation]:
    """Where tokenised texts leave a profile's widened ranges, by text. Raises as `measure` and `violations`."""
    if not profile.violations(measure_rows(folder, rows, recipe=recipe)):
        return []
    return [replace(each, text=i) for i, row in enumerate(rows)
            for each in profile.violations(measure_rows(folder, [row], recipe=recipe))]


def _unknown(needs: Needs) -> dict[str, Widening]:
    """How the quantities that a recipe's own functions declare are widened. Raises SettingsError where two of its
    functions mean different quantities by one name."""
    found: dict[str, Quantity] = {}
    for quantity in (q for quantities in needs.values() for q in quantities if q.name not in KNOWN):
        if found.setdefault(quantity.name, quantity) != quantity:
            raise SettingsError(f"two functions of this recipe declare different quantities named {quantity.name!r}; "
                                f"rename one of them")
    return {name: quantity.widening for name, quantity in found.items()}


def builtin_rows(folder: ModelFolder) -> list[Row]:
    """The built-in texts, some that are as long as the model takes (but for models of more than MOST_MEASURED tokens),
    repetitions, and rows of tokens; pairs where the model takes pairs.

    Raises ModelError for a tokenizer that does not suit the model.
    """
    rows, inputs = folder.tokenizer.rows, folder.architecture.inputs
    longest = min(inputs.longest, MOST_MEASURED)
    try:
        frame = folder.tokenizer.tokens("")
        single = [text for text in (*PROSE, *ODD, long_text(longest), *repetitions(longest))
                  if len(folder.tokenizer.tokens(text)) > len(inputs.before)]
        pairs = rows(PAIRS, truncation=True) if folder.tokenizer.takes_pairs else []
        found = [row.cut(longest) for row in (*rows(single, truncation=True), *pairs)]
        if isinstance(folder.architecture, Decoder):
            return [*found, *_of_decoder(folder, folder.architecture, longest)]
        return [*found, *token_rows(np.array(frame, np.int64), inputs.words, longest)]
    except InputError as error:
        raise ModelError(f"{folder.path}: the tokenizer does not suit the model. Of the built-in texts, which ranges "
                         f"are measured on, {error}") from error


def _of_decoder(folder: ModelFolder, decoder: Decoder, longest: int) -> list[Row]:
    """Conversations, where the tokenizer has a template for them, and rows of ordinary tokens. Special ones stand where
    the template has them: at others, such as the end of a document, values may be a hundred times as large."""
    tokenizer, prefix = folder.tokenizer, decoder.spec.prefix
    drawn = [row for row in token_rows(np.zeros(0, np.int64), decoder.inputs.words, longest)
             if not tokenizer.specials.intersection(row.ids.tolist())]
    if tokenizer.chat_template is None:
        return drawn
    asked = [list(messages) for messages in CONVERSATIONS]
    rows = [tokenizer.tokens(tokenizer.chat(messages), special=False) for messages in asked]
    behind = [ids[len(prefix) :] if tuple(ids[: len(prefix)]) == prefix else ids for ids in rows]
    return [*drawn, *(row.cut(longest) for row in id_rows({"input_ids": behind}, decoder.inputs))]


def _of_one_length(rows: Sequence[Row], most: int) -> Iterator[Batch]:
    """Batches of rows of equal length: without padding, and faster than one after the other. `most` tokens each."""
    for _, group in groupby(sorted(rows, key=len), len):
        for _, batch in batches(list(group), most):
            yield batch


class Probe(dict[str, Range]):
    """A call site that remembers the extremes of what it met."""

    def __init__(self, margin: float):
        super().__init__()
        self.margin = margin
        self.widened: dict[str, Range] = {}

    def see(self, quantity: Quantity, values: np.ndarray) -> None:
        """Counts values in: the range covers them from now on, and so does the widened one, which is what a protocol
        may choose its constants by for the values that were just seen."""
        low, high = float(values.min()), float(values.max())
        if quantity.name in self:
            low, high = min(low, self[quantity.name].low), max(high, self[quantity.name].high)
        self[quantity.name] = Range(low, high)
        self.widened[quantity.name] = quantity.widening(self[quantity.name], self.margin)


def probe(at: Site, quantities: tuple[Quantity, ...], *inputs: np.ndarray) -> Site:
    """For `observed`: tells the site, a Probe, what a function is given, and answers with the widened ranges so far."""
    if not isinstance(at, Probe):
        raise SettingsError(f"an observed recipe runs at sites that are a Probe, got a {type(at).__name__}")
    for quantity in quantities:
        at.see(quantity, quantity.of(np, *inputs))
    return at.widened
