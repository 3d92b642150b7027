"""Whether cells hold the same model, so that a text gets the same answer from each of them.

Each cell may have been provisioned by itself. Then the digests differ, and so do all shares, since they depend on
random salt. What identifies the model is compared instead. The weights themselves are secret, so they are not compared:
a range profile that was measured on other weights differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secformer.models.families.architecture import Architecture
from secformer.models.families.program import GUARD
from secformer.models.run.public import FORMAT, PUBLIC, PublicModel
from secformer.models.run.tables import FILE as TABLES
from secformer.models.run.tables import contents_of
from secformer.mpc.errors import ModelError
from secformer.roles.settings import ClientSettings

MADE_OF = "model"  # a profile's own digest of the weights, which provisioning replaces by one of salt
SHOWN = 40  # characters of a value; of a longer one, its digest is shown
TOLD = 4    # differences that are listed

Traits = Mapping[str, str]   # what must be the same, by what it is called
Named = tuple[str, Traits]   # a cell's name, and its traits


def traits_of(client: ClientSettings) -> Traits:
    """What must be the same at all cells: from a client's settings, and the model's folder that they name. Raises
    ModelError for a folder that cannot be read."""
    return model_traits(PublicModel.load(client.model), client)


def model_traits(public: PublicModel, client: ClientSettings) -> Traits:
    """As `traits_of`, where the description of the model was read before."""
    profile = {name: value for name, value in public.profile.as_dict().items() if name != MADE_OF}
    found: dict[str, Any] = {
        "format": FORMAT, "recipe": public.recipe.name,
        **{f"range profile: {name}": value for name, value in profile.items()},
        "fractional bits": public.fixed.frac, "magnitude": public.fixed.magnitude, "bits per word": public.width,
        "guard": GUARD in public.names, "results": list(public.names),
        "embedding": "private" if public.private else "client", "generates up to": public.slots,
        **{f"file {path.name}": _digest(path) for path in sorted(client.model.iterdir())
           if path.is_file() and path.name not in (PUBLIC, TABLES)},
        **({f"file {TABLES}": contents_of(client.model)} if (client.model / TABLES).is_file() else {}),
    }
    return architecture_traits(public.architecture, client.truncation) | {
        name: _shown(value) for name, value in found.items()}


def architecture_traits(architecture: Architecture, truncation: bool) -> dict[str, str]:
    """What must be the same of models whose folder is not known."""
    return {"family": architecture.model_type, "truncation": _shown(truncation)} | {
        f"architecture: {name}": _shown(value) for name, value in architecture.facts().items()}


def differences(first: Named, other: Named) -> list[str]:
    """What differs between two cells, in words; empty if they are alike."""
    (one, own), (two, its) = first, other
    return [f"{what}: {own.get(what, 'none')} at {one}, {its.get(what, 'none')} at {two}"
            for what in {**own, **its} if own.get(what) != its.get(what)]


def require_alike(cells: Sequence[Named], remedy: str) -> None:
    """Raises ModelError where two cells hold different models: with both cells' names, what differs, and the remedy."""
    for other in cells[1:]:
        if odd := differences(cells[0], other):
            more = f"; and {len(odd) - TOLD} more" if len(odd) > TOLD else ""
            raise ModelError(f"the cells {cells[0][0]} and {other[0]} hold different models, or read texts "
                             f"differently: {'; '.join(odd[:TOLD])}{more}. {remedy}")


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= SHOWN else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; `secformer provision` writes this folder for "
                         f"clients") from error
