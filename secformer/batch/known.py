"""The model that a job's cells hold, as the driver knows it: from the clients' folders, before anything is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from secformer.cells.alike import Traits, model_traits, require_alike
from secformer.cells.listing import ListedCell
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.run.public import PublicModel

REMEDY = "provision every cell from one model, with the same options, and set `truncation` alike or give --truncation"


@dataclass(frozen=True)
class Known:
    """What every cell's model has in common. `traits` name the model, whichever cell holds it."""

    architecture: Architecture
    tokenizer: Tokenizer
    truncation: bool
    traits: Traits

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(dict(self.traits), sort_keys=True).encode()).hexdigest()


def known(cells: Sequence[ListedCell], truncation: bool) -> Known:
    """The model of all cells. `truncation`: texts that are too long are cut, whatever the settings say.

    Raises ModelError where cells hold different models, and for folders that cannot be read.
    """
    found = [_known(cell, truncation) for cell in cells]
    require_alike([(cell.name, each.traits) for cell, each in zip(cells, found, strict=True)], REMEDY)
    return found[0]


def _known(cell: ListedCell, truncation: bool) -> Known:
    client = replace(cell.client, truncation=truncation or cell.client.truncation)
    public = PublicModel.load(client.model)
    return Known(public.architecture, Tokenizer(client.model, public.inputs), client.truncation,
                 model_traits(public, client))
