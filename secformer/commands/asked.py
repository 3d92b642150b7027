"""The model that a task is asked of: a folder, which runs in this process, or a served one.

Loads heavy modules, so commands import this when they have read their input.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import secformer
from secformer.commands.compiling import Compiling
from secformer.models.data.tokenizer import Reading, Texts, Tokenizer
from secformer.models.families.architecture import Architecture
from secformer.models.families.folder import ModelFolder
from secformer.models.run.helpers import Helpers
from secformer.models.run.output import SecureOutput
from secformer.models.run.progress import Progress
from secformer.mpc.errors import InputError
from secformer.roles.settings import load_client


class Asked(Helpers):
    """A model of which the command needs the whole output, beside the results of a task: its cost and its notes.

    A folder is loaded and shared when it is called, so heads and texts that do not fit are refused before that.
    """

    def __init__(self, architecture: Architecture, tokenizer: Tokenizer, guard: str, truncation: bool,
                 call: Callable[[Texts, bool | Progress], SecureOutput]):
        self.architecture, self.tokenizer, self.guard = architecture, tokenizer, guard
        self._truncation, self._call = truncation, call
        self._output: SecureOutput | None = None

    @property
    def output(self) -> SecureOutput:
        """The output of the last call."""
        if self._output is None:
            raise InputError("this model was not asked anything; call one of its tasks first")
        return self._output

    def __call__(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput:
        self._output = self._call(texts, progress)
        return self._output

    def _read(self, texts: Texts) -> Reading:
        return self.tokenizer.read(texts, truncation=self._truncation)


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
