"""The families: those of this package, and those of installed packages.

A family of another package is an entry point of the group `secformer.families`, under its model type. Its class is
imported when it is first needed, such as for a checkpoint of that type. Nothing in a model's folder is ever run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from secformer.models.families.architecture import Architecture
from secformer.models.families.bert import Bert
from secformer.models.families.config import Config
from secformer.mpc.errors import ModelError

GROUP = "secformer.families"
FAMILIES: Mapping[str, type[Architecture]] = MappingProxyType({family.model_type: family for family in (Bert,)})


def architecture_of(config: Config) -> Architecture:
    """The architecture of a checkpoint's config. Raises ModelError where no family runs it."""
    family = FAMILIES.get(config.model_type) or next(
        (_load(point) for point in _installed() if point.name == config.model_type), None)
    named = [name for name in config.architectures if family is not None and name in family.heads]
    if family is None or not named:
        known = [family] if family is not None else [*FAMILIES.values(), *map(_load, _installed())]
        supported = "; ".join(f"type {each.model_type!r} with {', '.join(each.heads)}" for each in known)
        raise ModelError(f"{config.file} names the model type {config.model_type!r} and the architectures "
                         f"{config.architectures}, which this version does not run. Supported: {supported}")
    return family.from_config(config, named[0])


def architecture_from(facts: Mapping[str, Any]) -> Architecture:
    """The architecture of a description that `Architecture.facts` made. Raises ValueError for an unknown class,
    TypeError for other keys than its family's."""
    name = facts["architecture"]
    for family in _all():
        if name in family.heads:
            return family.from_facts(facts)
    raise ValueError(f"no installed family runs the architecture {name!r}")


def _all() -> Iterator[type[Architecture]]:
    yield from FAMILIES.values()
    yield from map(_load, _installed())


def _installed() -> list[EntryPoint]:
    return [point for point in entry_points(group=GROUP) if point.name not in FAMILIES]


def _load(point: EntryPoint) -> type[Architecture]:
    try:
        family = point.load()
    except Exception as error:  # that package may raise anything; its family cannot be used
        raise ModelError(f"the installed family {point.name!r} ({point.value}) cannot be imported: "
                         f"{type(error).__name__}: {error}") from error
    if not (isinstance(family, type) and issubclass(family, Architecture)):
        raise ModelError(f"the installed family {point.name!r} ({point.value}) is not a subclass of Architecture")
    return family
