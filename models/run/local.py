"""The in-process model: folders and texts in, answers out. The caller acts as the client and as the owner.

The two parties run in the same process, and see shares only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from secformer.models.data.batch import Batch, Steps
from secformer.models.data.checkpoint import PathLike
from secformer.models.data.inputs import Request
from secformer.models.data.parameters import Parameters, load_weights
from secformer.models.data.shares import GhostTensors, OwnerShares, PlainTensors, SeedShares, Tensors
from secformer.models.data.tensors import TABLE
from secformer.models.data.tokenizer import Reading, Texts
from secformer.models.families.architecture import Spec
from secformer.models.families.blocks import Forward
from secformer.models.families.folder import ModelFolder
from secformer.models.families.program import Results, infer
from secformer.models.ranges.profile import RangeProfile
from secformer.models.ranges.trained import plaintext
from secformer.models.run.decoding import Decoding, decoder_of
from secformer.models.run.gather import gather
from secformer.models.run.generate import Generates
from secformer.models.run.guard import named
from secformer.models.run.helpers import Helpers
from secformer.models.run.local_decoding import PlainDecoding, Plans, SecureDecoding
from secformer.models.run.options import Settings, settings_of
from secformer.models.run.output import SecureOutput, assemble
from secformer.models.run.prepare import Prepared, prepare
from secformer.models.run.progress import Progress, shown, silent, sites_told
from secformer.models.run.tasks import advice, answers
from secformer.models.run.turns import Turns
from secformer.mpc.errors import SettingsError
from secformer.mpc.fixed import decode
from secformer.mpc.guarding import Guarded
from secformer.mpc.meter import Cost
from secformer.mpc.prg import fresh_seed
from secformer.mpc.script import Script
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.simulate import World
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import Recipe

PLANS = 256  # of the last batches, kept for the next of the same lengths: 0.4 MB each of a model of 12 layers


class _Model(Helpers, Generates):
    """A prepared folder that answers texts: what the secure model and its twin have in common."""

    def __init__(self, prepared: Prepared):
        self.folder, self.settings, self.architecture = prepared.folder, prepared.settings, prepared.architecture
        self.recipe, self.profile, self.profile_source = prepared.recipe, prepared.profile, prepared.source
        self.names, self.notes, self.layout = prepared.names, list(prepared.notes), prepared.layout
        self.tokenizer, self.guard = prepared.folder.tokenizer, prepared.settings.guard
        self._turns = Turns()

    @property
    def spec(self) -> Spec:
        """The public facts of the checkpoint."""
        return self.architecture.spec

    @property
    def private(self) -> bool:
        """Whether token ids stay secret. They are then looked up in secret tables."""
        return TABLE in self.layout

    def _read(self, texts: Texts) -> Reading:
        return self.tokenizer.read(texts, truncation=self.settings.truncation)

    def _assembled(self, read: Reading, results: Sequence[Mapping[str, np.ndarray]], cost: Cost | None) -> SecureOutput:
        return assemble(self.architecture, read.rows, results, cost=cost,
                        notes=[*self._noted(), *advice(self.architecture, read)], profile_source=self.profile_source,
                        guard=self.guard, answers=answers(self.architecture, read, results, self.tokenizer))

    def _noted(self) -> list[str]:
        return self.notes

    def _forward(self, batch: Batch, parameters: Parameters, tell: Progress = silent) -> Forward:
        at = sites_told(self.profile or _no_ranges, tell, len(self.architecture.sites))
        return Forward(batch, parameters, self.recipe, at)


class SecureModel(_Model):
    """A model whose weights two parties hold as shares. Call the model with texts.

    The weights are opened under their standing masks, once. Use the model as a context manager, or call `close`.
    Several threads may call one model: it answers them one after the other. A call that fails leaves the model usable.
    """

    def __init__(self, folder: ModelFolder, recipe: Recipe | str, profile: PathLike | RangeProfile | None,
                 settings: Settings, backend: str):
        self.world: World | None = World(backend=backend, fixed=settings.fixed, deadline=settings.deadline,
                                         graph=settings.graph)
        super().__init__(prepare(folder, recipe, profile, settings, on_shares=True))
        self.provisioning: Cost | None = None
        self._parameters: dict[Session, Parameters] = {}
        self._scripts: OrderedDict[Hashable, tuple[Script, list[str]]] = OrderedDict()  # and the places of a guard
        self._plans: Plans = OrderedDict()  # of steps of texts that grow

    @classmethod
    def from_pretrained(cls, folder: PathLike, *, recipe: Recipe | str = "auto", backend: str = "auto",
                        profile: PathLike | RangeProfile | None = None, **settings: Any) -> Self:
        """Opens and verifies a folder, then shares its weights between the parties. `settings` as in `Settings`.

        Raises ModelError, RangeError, SettingsError, BackendUnavailable.
        """
        model = cls(ModelFolder(folder), recipe, profile, settings_of(settings), backend)
        model.provision()
        return model

    def provision(self) -> Cost:
        """Shares the weights and opens them under their standing masks, once. Returns the cost."""
        with self._turns.take():
            return self._provisioned()

    def _provisioned(self) -> Cost:
        if self.provisioning is None:
            world, seed, layout = self._world(), fresh_seed(), self.layout

            def program(s: Session, tensors: Tensors) -> None:
                self._parameters[s] = load_weights(s, tensors)

            plan = world.recorder.record(program, GhostTensors(layout))
            owner = OwnerShares(layout, seed, self.folder.checkpoint, self.settings.frac)
            self.provisioning = world.run(program, owner, SeedShares(layout, seed), plan=plan).cost
        return self.provisioning

    def __call__(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput:
        """Answers in the order of the texts. Raises InputError for texts that the model cannot take."""
        sharing: Cost | None = None
        with self._turns.take(), shown(progress) as tell:
            read, tell = self._read(texts), self._turns.telling(tell)
            if self.provisioning is None:
                tell("sharing the weights", 0, 1)
                sharing = self._provisioned()
            results, cost = gather(read.rows, self.settings.batch_tokens, self.architecture.results, [self._ask], tell,
                                   steps=self._steps())
            return self._assembled(read, results, cost if sharing is None else sharing + cost)

    def _steps(self) -> Steps | None:
        """Lengths that texts are filled up to, where that makes fewer programs to record."""
        fill = self._world().recording and self.architecture.fillable and self.settings.pad_to > 1
        return Steps(self.settings.pad_to, self.architecture.inputs.longest) if fill else None

    def _ask(self, batch: Batch, tell: Progress) -> tuple[dict[str, np.ndarray], Cost]:
        world, halves = self._world(), self._halves(batch)
        guards = {s: Guarded(apart=True) for s in (*world.parties, world.recorder)}

        def program(s: Session, request: Request) -> Results:
            told = tell if s is world.parties[0] else silent
            forward = self._forward(batch, self._parameters[s], told)
            return infer(s, self.architecture, request, forward, self.names, guards[s])

        if batch.public not in self._scripts:
            script = world.script(program, halves[0].ghost())
            self._scripts[batch.public] = script, guards[world.recorder].places
            if len(self._scripts) > PLANS:
                self._scripts.popitem(last=False)
        self._scripts.move_to_end(batch.public)
        script, places = self._scripts[batch.public]
        outcome = world.run(program, *halves, script=script)
        mine, theirs = outcome.results
        found = {name: decode(words + theirs[name], self.settings.frac) for name, words in mine.items()}
        return named(found, places), outcome.cost

    def decoding(self) -> Decoding:
        """A text that grows in this model, empty but for a public prefix. Shares the weights, if that is still to come.

        Raises ModelError where the model does not tell the next token.
        """
        decoder = decoder_of(self.architecture)
        with self._turns.take():
            self._provisioned()
            return SecureDecoding(decoder, self._world, self._parameters, self._forward, self._halves,
                                  self.guard != "off", self._plans, self._turns)

    def _noted(self) -> list[str]:
        return [*self.notes, *self._world().notes]

    def _halves(self, batch: Batch) -> tuple[Request, Request]:
        inputs = self.architecture.inputs
        if self.private:
            return inputs.private_halves(batch, self.layout[TABLE].width, fresh_seed(), self._world().kernels)
        return inputs.client_halves(batch, self.folder.embeddings(batch), self.settings.frac, fresh_seed())

    def _world(self) -> World:
        if self.world is None:
            raise SettingsError("this SecureModel is closed; load it again with SecureModel.from_pretrained")
        return self.world

    def close(self) -> None:
        """Drops the parties and their shares, when a call that another thread makes has ended. Closing twice is
        allowed."""
        with self._turns.take():
            self.world = None
            self._parameters.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class PlainModel(_Model):
    """The float64 twin of `SecureModel`: the same program and recipe on plaintext. It protects nothing.

    Several threads may call it, as a `SecureModel`.
    """

    def __init__(self, folder: ModelFolder, recipe: Recipe | str, profile: PathLike | RangeProfile | None,
                 settings: Settings):
        super().__init__(prepare(folder, recipe, profile, settings, on_shares=False))
        self.session = PlainSession(settings.fixed, strict=False)
        self._parameters = load_weights(self.session, PlainTensors(self.layout, folder.checkpoint))

    @classmethod
    def from_pretrained(cls, folder: PathLike, *, recipe: Recipe | str = "auto",
                        profile: PathLike | RangeProfile | None = None, **settings: Any) -> Self:
        """Opens and verifies a folder. The twin looks embeddings up directly unless `embedding` says otherwise."""
        return cls(ModelFolder(folder), recipe, profile, settings_of({"embedding": "client"} | settings))

    def __call__(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput:
        """Answers in the order of the texts. Raises InputError for texts that the model cannot take."""
        with self._turns.take(), shown(progress) as tell:
            read, tell = self._read(texts), self._turns.telling(tell)
            results, _ = gather(read.rows, self.settings.batch_tokens, self.architecture.results, [self._ask], tell)
            return self._assembled(read, results, None)

    def decoding(self) -> Decoding:
        """A text that grows in this model, as `SecureModel.decoding`."""
        return PlainDecoding(decoder_of(self.architecture), self.session, self._parameters, self._forward,
                             self._request, self.guard != "off", self._turns)

    def _ask(self, batch: Batch, tell: Progress) -> tuple[Results, Cost]:
        forward = self._forward(batch, self._parameters, tell)
        guard = Guarded(apart=True)
        with np.errstate(over="ignore", invalid="ignore"):  # what leaves its range may grow; it is marked
            found = infer(self.session, self.architecture, self._request(batch), forward, self.names, guard)
        return named(found, guard.places), Cost()

    def _request(self, batch: Batch) -> Request:
        inputs = self.architecture.inputs
        if self.private:
            return inputs.private_request(batch, self.layout[TABLE].width, lambda: inputs.one_hot(batch, np.float64))
        return inputs.client_request(batch, lambda: self.folder.embeddings(batch))


def secure_model(model: PathLike | SecureModel, texts: Texts, *, recipe: Recipe | str = "auto", backend: str = "auto",
                 profile: PathLike | RangeProfile | None = None, progress: bool | Progress = False,
                 **settings: Any) -> SecureOutput:
    """Runs texts securely through a model, on additive shares. Returns the answers in the order of the texts.

    model     a Hugging Face folder, or a SecureModel, which got its recipe, backend, profile and settings when loaded
    texts     a text, a list of texts, a list of pairs, or a dict of token ids as a tokenizer returns it
    recipe    a Recipe or its name; "auto" is the recipe that the checkpoint was trained for, else "faithful"
    backend   "auto", "numpy" or "cupy"
    profile   a RangeProfile or its file; by default the file beside the checkpoint, else a profile measured at load
    progress  True for a bar on stderr, or a callback (what, done, total)
    settings  fields of `Settings`

    Raises ModelError, InputError, SettingsError, RangeError, BackendUnavailable, ProtocolError. Texts are checked
    before anything is shared.
    """
    if isinstance(model, SecureModel):
        if settings or (recipe, backend, profile) != ("auto", "auto", None):
            raise SettingsError("a loaded SecureModel already has its recipe, backend, profile and settings; give them "
                                "to SecureModel.from_pretrained instead")
        return model(texts, progress)
    chosen = settings_of(settings)
    folder = ModelFolder(model)
    folder.tokenizer.rows(texts, truncation=chosen.truncation)
    with SecureModel(folder, recipe, profile, chosen, backend) as loaded:
        return loaded(texts, progress)


def plain_model(model: PathLike, texts: Texts, **settings: Any) -> SecureOutput:
    """The reference: the same model in plaintext, in float64, with exact functions.

    A student runs with the functions that it was distilled for. `settings` are fields of `Settings`. Raises ModelError,
    InputError, SettingsError, RangeError.
    """
    return reference(ModelFolder(model), **settings)(texts)


def reference(folder: ModelFolder, **settings: Any) -> PlainModel:
    """The model behind `plain_model`. It holds any value, so nothing is checked."""
    recipe = plaintext(folder.architecture.spec)
    return PlainModel(folder, recipe, None, settings_of({"embedding": "client"} | settings | {"guard": "off"}))


def twin(model: PathLike, texts: Texts, *, recipe: Recipe | str = "auto",
         profile: PathLike | RangeProfile | None = None, **settings: Any) -> SecureOutput:
    """What `secure_model` computes, in plaintext and in float64: a recipe's approximations, without fixed point."""
    return PlainModel.from_pretrained(model, recipe=recipe, profile=profile, **settings)(texts)


secure_bert, plain_bert = secure_model, plain_model  # the names that these functions had first


def _no_ranges(site: str) -> Site:
    return {}
