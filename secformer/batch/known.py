"""The model that a job's cells hold, as the driver knows it: from the clients' folders, before anything is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secformer.cells.listing import ListedCell
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.run.public import PUBLIC, PublicModel
from secformer.models.run.tables import FILE as TABLES
from secformer.mpc.errors import ModelError

# What provisionings of one model have of their own: random bytes, the digest that they go into, and fitted series,
# which follow from the rest up to the last bits of whoever computed them. In the range profile, the digest of the
# weights is salted; the ranges themselves were measured on the weights, and tell models apart.
OWN = ("salt", "digest", "notes", "series", "books", "steps")
CALLED = {"spec": "the architecture", "profile": "the range profile, which is measured for each model",
          "frac": "the number format", "magnitude": "the number format", "names": "the results that clients get",
          "family": "the family", "tokenizer": "the files of the tokenizer", "truncation": "`truncation` in settings",
          "embedding": "who holds the embedding tables", "format": "the version"}
AGAIN = "every cell must be provisioned from one model, with the same options"


@dataclass(frozen=True)
class Known:
    """What every cell's model has in common.

    facts  what must be equal, by name
    """

    architecture: Architecture
    tokenizer: Tokenizer
    truncation: bool
    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Names the model, whichever cell holds it."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def known(cells: Sequence[ListedCell], truncation: bool) -> Known:
    """The model of all cells. `truncation`: texts that are too long are cut, whatever the settings say.

    Raises ModelError where cells hold different models, and for folders that cannot be read.
    """
    first = _known(cells[0], truncation)
    for cell in cells[1:]:
        other = _known(cell, truncation)
        if differ := sorted(name for name in {*first.facts, *other.facts}
                            if first.facts.get(name) != other.facts.get(name)):
            told = ", ".join(dict.fromkeys(CALLED.get(name, f"the {name}") for name in differ))
            raise ModelError(f"the cells {cells[0].name!r} and {cell.name!r} hold different models: {told} differ; "
                             f"{AGAIN}")
    return first


def _known(cell: ListedCell, truncation: bool) -> Known:
    folder, cut = cell.client.model, truncation or cell.client.truncation
    public = PublicModel.load(folder)
    facts = {name: value for name, value in json.loads(public.to_json()).items() if name not in OWN}
    facts["profile"] = {name: value for name, value in facts["profile"].items() if name != "model"}
    facts |= {"tokenizer": _digest_of(folder), "truncation": cut}
    return Known(public.architecture, Tokenizer(folder, public.inputs), cut, facts)


def _digest_of(folder: Path) -> str:
    """Of all files of a clients' folder that every provisioning of a model writes alike."""
    h = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in (PUBLIC, TABLES):
                h.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {folder}: {error.strerror}; `secformer provision` writes this folder for "
                         f"clients") from error
    return h.hexdigest()
