"""Folders and texts in, answers out: the client and the model owner around two parties.

The only file that reveals results, and it reveals them to the client. In-process, the caller plays both owners; the
parties see shares only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np

from secformer.models.choices import PathLike, choose_profile, choose_recipe, result_names
from secformer.models.design import plaintext
from secformer.models.encoder import Bert, Parameters, private_embedding
from secformer.models.folder import ModelFolder
from secformer.models.heads import answer
from secformer.models.layout import TABLE, Layout
from secformer.models.options import Settings, settings_of
from secformer.models.output import SecureOutput, assemble, per_token
from secformer.models.profile import RangeProfile
from secformer.models.progress import Progress, part, shown, silent, sites_told
from secformer.models.rehearsal import rehearse
from secformer.models.sharing import (
    GhostTensors,
    OwnerShares,
    PlainTensors,
    Request,
    SeedShares,
    client_requests,
    one_hot,
    private_requests,
    provision,
)
from secformer.models.tokens import Batch, Row, Texts, batches
from secformer.mpc.errors import SettingsError
from secformer.mpc.fixed import decode
from secformer.mpc.meter import Cost
from secformer.mpc.prg import fresh_seed
from secformer.mpc.session import CLIENT, Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.simulate import World
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import EXACT, Recipe

SITES_PER_LAYER = 4  # softmax, gelu, two layernorms: what progress counts
Results = dict[str, Any]  # by name, words with the session's fractional bits (the twin: values)


def infer(s: Session, request: Request, batch: Batch, bert: Bert, names: Sequence[str]) -> Results:
    """The program that every session runs for one batch: accept the client's input, compute, reveal to the client."""
    with s.scope("embedding"):
        x = s.accept(request.words(), frac=0 if request.private else None, width=request.width)
        if request.private:
            x = private_embedding(s, x, batch, bert)
    out = answer(s, x, batch, bert)
    with s.scope("reveal"):
        kept = s.lift(*(out[name] for name in names))
        return {name: s.reveal(x, CLIENT) for name, x in zip(names, kept, strict=True)}


class _Model:
    """A folder with a recipe, ranges and settings; what the secure model and its twin have in common."""

    def __init__(self, folder: ModelFolder, recipe: Recipe | str, profile: PathLike | RangeProfile | None,
                 settings: Settings):
        self.folder, self.spec, self.settings = folder, folder.spec, settings
        self.recipe = choose_recipe(recipe, folder, untrained=settings.untrained_recipe)
        folder.verify(settings.fixed)
        self.names = result_names(folder.spec, settings)
        self.profile, self.profile_source, notes = choose_profile(profile, folder, self.recipe, settings.fixed)
        self.notes = [*folder.notes, *notes]
        self.layout: Layout = folder.layout(settings.fixed, private=settings.embedding == "private")

    def __call__(self, texts: Texts, progress: bool | Progress = False) -> SecureOutput:
        """Answers in the order of the texts. Raises InputError for texts that the model cannot take."""
        rows = self.folder.tokenizer.rows(texts, truncation=self.settings.truncation)
        results: list[Mapping[str, np.ndarray]] = [{}] * len(rows)
        cost: Cost | None = None
        with shown(progress) as tell:
            for places, batch, answers, spent in self._answers(rows, tell):
                cost = spent if cost is None else cost if spent is None else cost + spent
                for i, place in enumerate(places):
                    results[place] = {name: self._own(name, values, batch, i) for name, values in answers.items()}
        return assemble(self.spec, rows, results, cost=cost, notes=self.notes, profile_source=self.profile_source)

    def _answers(self, rows: Sequence[Row], tell: Progress) -> Iterator[
        tuple[list[int], Batch, dict[str, np.ndarray], Cost | None]
    ]:
        chunks = list(batches(rows, self.settings.batch_tokens))
        for number, (places, batch) in enumerate(chunks):
            answers, cost = self._run(batch, part(tell, number, len(chunks)))
            yield places, batch, answers, cost

    def _run(self, batch: Batch, tell: Progress) -> tuple[dict[str, np.ndarray], Cost | None]:
        raise NotImplementedError

    def _own(self, name: str, values: np.ndarray, batch: Batch, i: int) -> np.ndarray:
        start, length = batch.starts[i], batch.lengths[i]
        return np.asarray(values[start : start + length] if per_token(self.spec, name) else values[i])

    def _bert(self, parameters: Parameters, tell: Progress = silent) -> Bert:
        total = SITES_PER_LAYER * self.spec.layers + 1
        return Bert(self.spec, parameters, self.recipe, sites_told(self.profile or _no_ranges, tell, total))


class SecureModel(_Model):
    """A model whose weights two parties hold as shares, with their masks opened once; call it with texts.

    Use it as a context manager, or call `close`. Not for several threads at once.
    """

    def __init__(self, folder: ModelFolder, recipe: Recipe | str, profile: PathLike | RangeProfile | None,
                 settings: Settings, backend: str):
        self.world: World | None = World(backend=backend, fixed=settings.fixed, deadline=settings.deadline)
        super().__init__(folder, recipe, profile, settings)
        if self.recipe is EXACT:
            raise SettingsError("the recipe 'exact' is the plaintext reference and cannot run on shares; use "
                                "plain_bert for it, or the recipe 'faithful'")
        if self.profile is not None:
            rehearse(folder, self.recipe, self.profile, settings.fixed)
        self.provisioning: Cost | None = None
        self._parameters: dict[Session, Parameters] = {}

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
        """Shares the weights and opens their masks, once; what that cost."""
        if self.provisioning is None:
            world, seed, layout = self._world(), fresh_seed(), self.layout

            def program(s: Session, inputs: Any) -> None:
                self._parameters[s] = provision(s, inputs, layout)

            plan = world.recorder.record(program, GhostTensors(layout))
            owner = OwnerShares(layout, seed, self.folder.checkpoint, self.settings.frac)
            self.provisioning = world.run(program, owner, SeedShares(layout, seed), plan=plan).cost
        return self.provisioning

    def _answers(self, rows: Sequence[Row], tell: Progress) -> Iterator[
        tuple[list[int], Batch, dict[str, np.ndarray], Cost | None]
    ]:
        if self.provisioning is None:
            tell("sharing the weights", 0, 1)
            spent: Cost | None = self.provision()
        else:
            spent = None
        for places, batch, answers, cost in super()._answers(rows, tell):
            yield places, batch, answers, cost if spent is None or cost is None else spent + cost
            spent = None

    def _run(self, batch: Batch, tell: Progress) -> tuple[dict[str, np.ndarray], Cost | None]:
        world = self._world()

        def program(s: Session, request: Request) -> Results:
            told = tell if s is world.parties[0] else silent
            return infer(s, request, batch, self._bert(self._parameters[s], told), self.names)

        requests = self._requests(batch)
        outcome = world.run(program, *requests, plan=world.recorder.record(program, requests[0].ghost()))
        mine, theirs = outcome.results
        return {name: decode(words + theirs[name], self.settings.frac) for name, words in mine.items()}, outcome.cost

    def _requests(self, batch: Batch) -> tuple[Request, Request]:
        if self.settings.embedding == "private":
            return private_requests(batch, self.spec, self.layout[TABLE].width, fresh_seed())
        return client_requests(self.folder.embeddings(batch), self.settings.frac, fresh_seed())

    def _world(self) -> World:
        if self.world is None:
            raise SettingsError("this SecureModel is closed; load it again with SecureModel.from_pretrained")
        return self.world

    def close(self) -> None:
        """Lets go of the parties and their shares. Closing twice is allowed."""
        self.world = None
        self._parameters.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class PlainModel(_Model):
    """The float64 twin of `SecureModel`: same programs, same recipe, no shares. Not secure, and not meant to be."""

    def __init__(self, folder: ModelFolder, recipe: Recipe | str, profile: PathLike | RangeProfile | None,
                 settings: Settings):
        super().__init__(folder, recipe, profile, settings)
        self.session = PlainSession(settings.fixed, strict=self.recipe is not EXACT)
        self._parameters = provision(self.session, PlainTensors(self.layout, folder.checkpoint), self.layout)

    @classmethod
    def from_pretrained(cls, folder: PathLike, *, recipe: Recipe | str = "auto",
                        profile: PathLike | RangeProfile | None = None, **settings: Any) -> Self:
        """Opens and verifies a folder. The twin looks embeddings up directly unless `embedding` says otherwise."""
        return cls(ModelFolder(folder), recipe, profile, settings_of({"embedding": "client"} | settings))

    def _run(self, batch: Batch, tell: Progress) -> tuple[dict[str, np.ndarray], Cost | None]:
        n, spec = batch.tokens, self.spec
        if self.settings.embedding == "private":
            request = Request(lambda: one_hot(batch, spec, np.float64), (n, spec.vocab + spec.types), True,
                              self.layout[TABLE].width)
        else:
            request = Request(lambda: self.folder.embeddings(batch), (n, spec.hidden), False)
        results = infer(self.session, request, batch, self._bert(self._parameters, tell), self.names)
        return results, None


def secure_bert(model: PathLike | SecureModel, texts: Texts, *, recipe: Recipe | str = "auto", backend: str = "auto",
                profile: PathLike | RangeProfile | None = None, progress: bool | Progress = False,
                **settings: Any) -> SecureOutput:
    """Runs texts through a BERT on additive shares: what the plaintext model would have said.

    model     a Hugging Face folder, or a SecureModel, which was given its recipe, backend and settings when loaded
    texts     a text, a list of texts, a list of pairs, or a dict of token ids as a tokenizer returns it
    recipe    a Recipe or its name; "auto" takes what the checkpoint says, else "faithful"
    backend   "auto", "numpy" or "cupy"
    profile   a RangeProfile or its file; by default the one beside the checkpoint, else one is measured
    progress  True for a bar on stderr, or a callback (what, done, total)
    settings  fields of `Settings`

    Raises ModelError, InputError, SettingsError, RangeError, BackendUnavailable, ProtocolError; texts are checked
    before anything is shared.
    """
    if isinstance(model, SecureModel):
        if settings or (recipe, backend, profile) != ("auto", "auto", None):
            raise SettingsError("a loaded SecureModel has its recipe, backend, profile and settings; give them to "
                                "SecureModel.from_pretrained")
        return model(texts, progress)
    with ExitStack() as stack:
        chosen = settings_of(settings)
        folder = ModelFolder(model)
        folder.tokenizer.rows(texts, truncation=chosen.truncation)
        loaded = stack.enter_context(SecureModel(folder, recipe, profile, chosen, backend))
        return loaded(texts, progress)


def plain_bert(model: PathLike, texts: Texts, **settings: Any) -> SecureOutput:
    """The reference: the same model in float64, in plaintext, with exact functions; for a checkpoint that was distilled
    for other functions, with those."""
    return reference(ModelFolder(model), **settings)(texts)


def reference(folder: ModelFolder, **settings: Any) -> PlainModel:
    """The model behind `plain_bert`."""
    return PlainModel(folder, plaintext(folder.spec), None, settings_of({"embedding": "client"} | settings))


def twin(model: PathLike, texts: Texts, *, recipe: Recipe | str = "auto",
         profile: PathLike | RangeProfile | None = None, **settings: Any) -> SecureOutput:
    """What `secure_bert` computes, in float64 and in plaintext: a recipe's approximations without fixed point."""
    return PlainModel.from_pretrained(model, recipe=recipe, profile=profile, **settings)(texts)


def _no_ranges(site: str) -> Site:
    return {}
