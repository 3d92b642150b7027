"""Commands for models that generate text, in a folder or served: generate, chat, score."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from secformer.commands import arguments
from secformer.commands.common import Commands, show, texts_of
from secformer.commands.parsing import READ

if TYPE_CHECKING:
    from secformer.models.data.tokenizer import Tokenizer
    from secformer.models.generation.prompts import Prompt
    from secformer.models.run.drafters import Draft
    from secformer.models.run.generate import Generation

EXIT, NEW = "/exit", "/new"  # what a user of `chat` writes to end it, and to begin a new conversation
HELP = f"{EXIT} or Ctrl-D ends, {NEW} begins a new conversation, Ctrl-C stops an answer"
PROBE = "a"  # a question that fits every conversation
DRAFTS: Mapping[str, Literal["auto"] | None] = {"auto": "auto", "off": None}  # what --draft takes beside folders


def generate(args: argparse.Namespace) -> None:
    prompt = "\n".join(texts_of([args.prompt]))
    if args.continued and args.system is not None:
        args.usage("--system is for a conversation; leave it out, or leave --continue out")
    served, draft = _checked(args), _draft(args)
    from secformer.commands.generating import generating
    from secformer.models.generation.prompts import as_prompt
    from secformer.views import generation

    def given(tokenizer: Tokenizer) -> Prompt:
        return as_prompt(tokenizer, prompt, system=args.system, continued=args.continued)

    with generating(args, served=served, check=lambda own: _fits(args, own, given(own), draft)) as (model, compiling):
        with model.generate(given(model.tokenizer), stream=True, draft=draft, progress=args.progress,
                            **arguments.sampled(args)) as running:
            if args.json:
                running.run()
            else:
                _stream(running)
        found = running.result
        notes = [*found.notes, *compiling.notes]
    if args.json:
        show(args, generation.generated_json(prompt, found, notes), "")
    else:
        _told([generation.cost_line(found), *(f"note: {note}" for note in notes)])


def chat(args: argparse.Namespace) -> None:
    served, draft = _checked(args), _draft(args)
    from secformer.commands.generating import generating
    from secformer.models.generation.prompts import as_prompt
    from secformer.models.run.conversation import Conversation
    from secformer.mpc.errors import InputError
    from secformer.views import generation

    def check(tokenizer: Tokenizer) -> None:
        if tokenizer.chat_template is None:
            raise InputError(f"the tokenizer in {tokenizer.folder} has no chat template, so this model holds no "
                             f"conversation; `secformer generate` continues a text")
        _fits(args, tokenizer, as_prompt(tokenizer, PROBE, system=args.system), draft)

    with generating(args, served=served, check=check) as (model, compiling):
        talk, told = Conversation(model, system=args.system), set[str]()
        _told([HELP])
        while (line := _line()) is not None and line.strip() != EXIT:
            if line.strip() == NEW:
                talk.close()
                talk = Conversation(model, system=args.system)
            elif line.strip():
                try:
                    with talk.ask(line, stream=True, draft=draft, progress=args.progress,
                                  **arguments.sampled(args)) as running:
                        _stream(running)
                except KeyboardInterrupt:
                    _told(["stopped"])
                    continue
                except InputError as error:
                    _told([f"secformer: {error}"])
                    continue
                found = running.result
                notes = [note for note in (*found.notes, *compiling.notes) if note not in told]
                _told([generation.cost_line(found), *(f"note: {note}" for note in notes)])
                told.update(notes)
        talk.close()


def score(args: argparse.Namespace) -> None:
    texts = texts_of(args.texts)
    if not texts:
        args.usage("give at least one text; `-` reads standard input")
    served = _checked(args)
    from secformer.commands.generating import generating
    from secformer.views import generation

    with generating(args, served=served, check=lambda tokenizer: tokenizer.rows(texts)) as (model, compiling):
        found = model.score(texts)
        notes = list(dict.fromkeys([note for each in found for note in each.notes] + compiling.notes))
    show(args, generation.scores_json(texts, found, notes), generation.scores(texts, found, notes))


# ---- the terminal ----------------------------------------------------------------------------------------------------


def _stream(running: Generation) -> None:
    """Writes pieces to standard output as they come, then the end of a line, also where that is cut short."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    written = False
    try:
        for piece in running:
            if piece:
                print(piece, end="", flush=True)
                written = True
    finally:
        if written or running.tokens:
            print(flush=True)


def _line() -> str | None:
    """The next line of standard input; None at its end, and where Ctrl-C comes instead."""
    try:
        if sys.stdin.isatty():
            import readline  # noqa: F401  # lets `input` edit the line, and go back to earlier ones

            return input("> ")
        line = sys.stdin.readline()
    except (EOFError, KeyboardInterrupt):
        print()
        return None
    return line.rstrip("\r\n") if line else None


def _told(lines: Iterable[str]) -> None:
    """Lines beside the text: standard output has the text alone."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


# ---- options ---------------------------------------------------------------------------------------------------------


def _checked(args: argparse.Namespace) -> bool:
    """Whether MODEL is a client's settings file."""
    arguments.public_prefix(args)
    served = arguments.check_model(args)
    arguments.check_profile(args)
    return served


def _fits(args: argparse.Namespace, tokenizer: Tokenizer, prompt: Prompt, draft: Draft) -> None:
    """Raises InputError for a prompt that the model cannot take, SettingsError for options of tokens, and ModelError
    for a draft model with another vocabulary."""
    from secformer.models.generation.prompts import render
    from secformer.models.run.drafters import drafter_of
    from secformer.models.run.generate import sampling_of

    render(tokenizer, prompt, sampling_of(arguments.sampled(args)).max_new_tokens)
    drafter_of(draft, tokenizer)


def _draft(args: argparse.Namespace) -> Draft:
    """What --draft names, with a draft model opened: `chat` uses it for all answers. Raises as `DraftModel`."""
    if args.draft in DRAFTS:
        return DRAFTS[args.draft]
    if not Path(args.draft).is_dir():
        args.usage(f"--draft takes auto, off, or the folder of a draft model; there is no folder {args.draft}")
    from secformer.models.run.draft_model import DraftModel

    return DraftModel(args.draft)


# ---- how they are called --------------------------------------------------------------------------------------------

_SERVED = """\
MODEL is a local Hugging Face folder of a causal language model, which runs in this process, or a client's settings
file, as `secformer query` takes it.
"""
_GENERATE = f"""\
Answers a prompt, securely, and writes the text as it comes; what it cost goes to stderr. If the model has a chat
template, the prompt is a user's message; otherwise, or with --continue, the model continues it. The parties see how
many tokens the prompt and the answer have.
{_SERVED}
examples:
  secformer generate ./my-chat-model "What is the capital of France?"
  secformer generate ./my-chat-model --system "Be brief." --temperature 0.7 --seed 1 "Tell me a story."
  secformer generate ./my-decoder --max-new-tokens 50 --json - < prompt.txt > answer.json
"""
_CHAT = f"""\
Holds a conversation, securely: reads a line, writes the model's answer as it comes. What was said stays with the
parties as shares, so a turn computes its new tokens only. {EXIT}, Ctrl-D or Ctrl-C ends; Ctrl-C in the middle of an
answer stops that answer; {NEW} begins a new conversation.
{_SERVED}
examples:
  secformer chat ./my-chat-model
  secformer chat client.toml --system "Be brief." --max-new-tokens 200
"""
_SCORE = f"""\
Tells how likely texts are for the model, securely: the natural logarithm of a text's probability, token by token
without its first one, and the perplexity.
{_SERVED}
examples:
  secformer score ./my-decoder "The cat sat on the mat." "Mat the on sat cat the."
  secformer score client.toml --json - < texts.txt
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("generate", generate, "continue or answer a prompt", _GENERATE)
    arguments.model(p, or_settings=True)
    p.add_argument("prompt", metavar="PROMPT", help=f"the prompt; `{READ}` reads standard input")
    p.add_argument("--continue", action="store_true", dest="continued",
                   help="continue the prompt as it stands, although the model has a chat template")
    _tokens(p)
    _model(p)

    p = commands.add("chat", chat, "hold a conversation with a model", _CHAT, json=False)
    arguments.model(p, or_settings=True)
    _tokens(p)
    _model(p)

    p = commands.add("score", score, "tell how likely texts are", _SCORE)
    arguments.model(p, or_settings=True)
    p.add_argument("texts", nargs="*", metavar="TEXT",
                   help="texts; `-` reads standard input, one text per line (empty lines are left out)")
    _model(p)


def _tokens(p: argparse.ArgumentParser) -> None:
    group = arguments.sampling(p)
    group.add_argument("--draft", default="auto", metavar="D",
                       help="where decoding is greedy, tokens are guessed, and several are verified in one step. auto: "
                            "guessed from the text so far (default); the folder of a small model with the same "
                            "vocabulary: by that model, in plaintext, in this process; off: one token in each step. "
                            "The tokens are the same")


def _model(p: argparse.ArgumentParser) -> None:
    arguments.prefix(p)
    arguments.profile(p)
    arguments.running(p)
    arguments.guard(p)
    arguments.embedding(p)
