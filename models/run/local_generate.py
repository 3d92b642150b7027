"""Text from a folder in one call: securely, and in plaintext as the reference."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from typing import Any, Literal, overload

from secformer.models.data.checkpoint import PathLike
from secformer.models.families.folder import ModelFolder
from secformer.models.generation.prompts import Prompt, render
from secformer.models.generation.sampling import Sampling
from secformer.models.ranges.profile import RangeProfile
from secformer.models.run.decoding import decoder_of
from secformer.models.run.drafters import Draft, drafter_of
from secformer.models.run.generate import Generated, Generation, sampling_of
from secformer.models.run.local import SecureModel, reference, require_left_out
from secformer.models.run.options import settings_of
from secformer.models.run.prefix import AUTO
from secformer.models.run.progress import Progress, shown
from secformer.protocols.recipes import Recipe


@overload
def secure_generate(model: PathLike | SecureModel, prompt: Prompt, *, stream: Literal[False] = False,
                    draft: Draft = "auto", recipe: Recipe | str = "auto", backend: str = "auto",
                    profile: PathLike | RangeProfile | None = None, progress: bool | Progress = False,
                    **options: Any) -> Generated: ...
@overload
def secure_generate(model: PathLike | SecureModel, prompt: Prompt, *, stream: Literal[True], draft: Draft = "auto",
                    recipe: Recipe | str = "auto", backend: str = "auto",
                    profile: PathLike | RangeProfile | None = None, progress: bool | Progress = False,
                    **options: Any) -> Generation: ...
def secure_generate(model: PathLike | SecureModel, prompt: Prompt, *, stream: bool = False, draft: Draft = "auto",
                    recipe: Recipe | str = "auto", backend: str = "auto",
                    profile: PathLike | RangeProfile | None = None, progress: bool | Progress = False,
                    **options: Any) -> Generated | Generation:
    """Continues a text, or answers messages, on additive shares.

    model     a Hugging Face folder of a causal language model, or a SecureModel, which got its recipe, backend, profile
              and settings when loaded
    prompt    a text; messages, each with a `role` and a `content`, by the tokenizer's chat template; or a dict of token
              ids
    stream    False: `Generated`; True: a `Generation`, an iterator of pieces of text. A model that was loaded for it is
              closed when it ends
    draft     as for `SecureModel.generate`: "auto", the folder of a draft model, a `Drafter`, or None. The tokens are
              the same
    recipe, backend, profile, progress   as for `secure_model`
    options   fields of `Sampling`, named as in `generate` of `transformers`: max_new_tokens (20), temperature, top_k,
              top_p, repetition_penalty, stop, seed; and fields of `Settings`, such as public_prefix, which is
              "auto" here

    Raises ModelError, InputError, SettingsError, RangeError, BackendUnavailable, ProtocolError. Prompt and options are
    checked before anything is shared.
    """
    sampling, settings = _split(options)
    if isinstance(model, SecureModel):
        require_left_out(recipe, backend, profile, settings)
        running: Generation = model.generate(prompt, stream=True, draft=draft, progress=progress, **sampling)
        return running if stream else running.run()
    chosen, folder = settings_of({"public_prefix": AUTO} | settings), ModelFolder(model)
    decoder_of(folder.architecture)
    render(folder.tokenizer, prompt, sampling_of(sampling).max_new_tokens)
    drafter = drafter_of(draft, folder.tokenizer)
    with ExitStack() as opened:
        loaded = opened.enter_context(SecureModel(folder, recipe, profile, chosen, backend))
        with shown(progress) as tell:
            tell("sharing the weights", 0, 1)
            loaded.provision()
        running = loaded.generate(prompt, stream=True, draft=drafter, progress=progress, **sampling)
        running.leaving.callback(opened.pop_all().close)
    return running if stream else running.run()


@overload
def plain_generate(model: PathLike, prompt: Prompt, *, stream: Literal[False] = False, draft: Draft = None,
                   **options: Any) -> Generated: ...
@overload
def plain_generate(model: PathLike, prompt: Prompt, *, stream: Literal[True], draft: Draft = None,
                   **options: Any) -> Generation: ...
def plain_generate(model: PathLike, prompt: Prompt, *, stream: bool = False, draft: Draft = None,
                   **options: Any) -> Generated | Generation:
    """The reference for `secure_generate`: the same model in plaintext, in float64, with exact functions.

    It needs no public prefix, because it holds any value. Raises ModelError, InputError, SettingsError.
    """
    sampling, settings = _split(options)
    loaded = reference(ModelFolder(model), **{"public_prefix": None} | settings)
    running: Generation = loaded.generate(prompt, stream=True, draft=draft, **sampling)
    return running if stream else running.run()


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of `Sampling`, and all others."""
    names = {each.name for each in fields(Sampling)}
    return ({name: value for name, value in options.items() if name in names},
            {name: value for name, value in options.items() if name not in names})
