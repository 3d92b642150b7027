"""The families: those of this package, and those of installed packages.

A family of another package is an entry point of the group `secformer.families`, under its model type. Its class is
imported when it is first needed, such as for a checkpoint of that type. Nothing in a model's folder is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from secformer.models.families.albert import Albert
from secformer.models.families.architecture import Architecture
from secformer.models.families.bert import Bert
from secformer.models.families.config import Config
from secformer.models.families.deberta_v2 import DebertaV2
from secformer.models.families.distilbert import DistilBert
from secformer.models.families.electra import Electra
from secformer.models.families.gpt2 import GPT2
from secformer.models.families.heads import Head
from secformer.models.families.llama import Llama
from secformer.models.families.mistral import Mistral
from secformer.models.families.modernbert import ModernBert
from secformer.models.families.modules import Modules, read_modules
from secformer.models.families.mpnet import MPNet
from secformer.models.families.nomic_bert import NomicBert
from secformer.models.families.qwen2 import Qwen2
from secformer.models.families.qwen3 import Qwen3
from secformer.models.families.roberta import Camembert, Roberta, XLMRoberta
from secformer.models.families.sentence import PLACE, SentenceModel
from secformer.mpc.errors import ModelError

GROUP = "secformer.families"
FAMILIES: Mapping[str, type[Architecture]] = MappingProxyType({family.model_type: family for family in (
    Albert,
    Bert,
    Camembert,
    DebertaV2,
    DistilBert,
    Electra,
    GPT2,
    Llama,
    Mistral,
    ModernBert,
    MPNet,
    NomicBert,
    Qwen2,
    Qwen3,
    Roberta,
    XLMRoberta,
)})


def architecture_of(config: Config) -> Architecture:
    """The architecture of a checkpoint's config. Raises ModelError where no family runs it."""
    family, modules = _family(config.model_type), read_modules(config.file.parent)
    named = [name for name in config.architectures if family is not None and name in family.classes]
    if family is not None and modules is not None:  # they stand behind the encoder alone, whatever head was stored
        named = [name for name, head in family.classes.items() if head is Head.ENCODER]
    if family is None or not named:
        if family is not None:
            supported = [f"type {config.model_type!r} with {', '.join(family.classes)}"]
        else:
            supported = [f"type {name!r}" for name in FAMILIES]
            supported += [f"type {name!r} (an installed package)" for name in sorted(_installed())]
        raise ModelError(f"{config.file} names the model type {config.model_type!r} and the architectures "
                         f"{config.architectures}, which this version does not run. Other names in the file do not "
                         f"help: a model of another type computes something else. Supported: {'; '.join(supported)}")
    found = family.from_config(config, named[0])
    return found if modules is None else SentenceModel.around(found, modules)


def architecture_from(model_type: str, facts: Mapping[str, Any]) -> Architecture:
    """The architecture of a description: its family's model type, and what `Architecture.facts` gave.

    Raises ModelError where the family is not installed here, and TypeError or ValueError for other facts than its own.
    """
    family = _family(model_type)
    if family is None:
        raise ModelError(f"this model is of the type {model_type!r}, which no family here runs; install the package "
                         f"that brings the family (parties and clients need it, as the owner does)")
    if facts["architecture"] not in family.classes:
        raise ValueError(f"the family {model_type!r} does not run the architecture {facts['architecture']!r}")
    own = {key: value for key, value in facts.items() if key != PLACE}
    found = family.from_facts(own)
    return SentenceModel.around(found, Modules.of(facts[PLACE])) if PLACE in facts else found


def _family(model_type: str) -> type[Architecture] | None:
    """The family of a model type; the only one that is imported."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    point = _installed().get(model_type)
    return None if point is None else _load(point)


def _installed() -> dict[str, EntryPoint]:
    """The families of installed packages by model type; they never stand for one of this package."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in FAMILIES}


def _load(point: EntryPoint) -> type[Architecture]:
    try:
        family = point.load()
    except Exception as error:  # that package may raise anything; its family cannot be used
        raise ModelError(f"the installed family {point.name!r} ({point.value}) cannot be imported: "
                         f"{type(error).__name__}: {error}") from error
    if not (isinstance(family, type) and issubclass(family, Architecture)):
        raise ModelError(f"the installed family {point.name!r} ({point.value}) is not a subclass of Architecture")
    return family
