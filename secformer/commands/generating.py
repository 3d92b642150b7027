"""The model that generates text: a folder, which runs in this process, or a served one.

Loads heavy modules, so commands import this when they have read their input.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import secformer
from secformer.commands import arguments
from secformer.commands.compiling import Compiling
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.families.folder import ModelFolder
from secformer.models.run.decoding import decoder_of
from secformer.models.run.generate import Generates
from secformer.models.run.progress import shown
from secformer.mpc.errors import ModelError


@contextmanager
def generating(args: argparse.Namespace, *, served: bool,
               check: Callable[[Tokenizer], object]) -> Iterator[tuple[Generates, Compiling]]:
    """The model that MODEL names: the one that a client's settings file leads to, if `served`, else the folder, whose
    weights are shared here. With it comes what notices that kernels are compiled.

    check  raises for input that the model cannot take, before weights are shared

    Raises ModelError where the model generates no text, before that, too.
    """
    with Compiling() as compiling:
        if served:
            with secformer.connect(args.model, guard=args.guard) as remote:
                model = _generates(remote)
                check(model.tokenizer)
                yield model, compiling
            return
        folder = ModelFolder(args.model)
        decoder_of(folder.architecture)
        check(folder.tokenizer)
        with shown(args.progress) as tell:
            tell("sharing the weights", 0, 1)
            loaded = secformer.SecureModel.from_pretrained(
                args.model, recipe=args.recipe, backend=args.backend, profile=args.profile, embedding=args.embedding,
                guard=args.guard, untrained_recipe=args.untrained_recipe, frac=args.frac,
                public_prefix=arguments.public_prefix(args))
        with loaded:
            yield loaded, compiling


def _generates(model: object) -> Generates:
    if not isinstance(model, Generates):
        raise ModelError("this served model generates no text; give the folder of a causal language model")
    return model
