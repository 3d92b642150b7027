"""The model that a task is asked of: a folder, which runs in this process, or a served one.

Loads heavy modules, so commands import this when they have read their input.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import secformer
from secformer.commands.compiling import Compiling
from secformer.models.data.tokenizer import Texts
from secformer.models.families.folder import ModelFolder
from secformer.models.run.asked import Asked
from secformer.models.run.output import SecureOutput
from secformer.models.run.progress import Progress
from secformer.roles.settings import load_client


@contextmanager
def asked(args: argparse.Namespace, *, served: bool) -> Iterator[Asked]:
    """The model that MODEL names: the one that a client's settings file leads to, if `served`, else the folder."""
    if served:
        settings = load_client(args.model)
        settings = replace(settings, truncation=settings.truncation or args.truncation)
        with secformer.connect(settings, guard=args.guard) as remote:
            yield Asked(remote.architecture, remote.tokenizer, remote.guard, settings.truncation, remote)
    else:
        folder = ModelFolder(args.model)
        yield Asked(folder.architecture, folder.tokenizer, args.guard, args.truncation,
                    lambda texts, progress: in_process(args, texts, progress))


def in_process(args: argparse.Namespace, texts: Texts, progress: bool | Progress) -> SecureOutput:
    """A secure run of the folder MODEL with the command's options. It has a note if the kernels were compiled."""
    with Compiling() as compiling:
        out = secformer.secure_model(
            args.model, texts, recipe=args.recipe, backend=args.backend, profile=args.profile, progress=progress,
            embedding=args.embedding, truncation=args.truncation, guard=args.guard,
            untrained_recipe=args.untrained_recipe, frac=args.frac,
        )
    return replace(out, notes=[*out.notes, *compiling.notes])
