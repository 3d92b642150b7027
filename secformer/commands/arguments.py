"""Arguments that several commands take, each declared once."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from secformer.commands import files

# Importing the recipes, the designs or the backends would import NumPy, which --help must not wait for. Tests compare
# these names with the code's.
RECIPE = ("auto: the recipe that config.json names, or faithful if it names none (auto is the default); faithful: "
          "plaintext accuracy on any checkpoint; secformer: the paper's protocols; puma, crypten, mpcformer, "
          "mpcformer_2relu: the systems that the paper compares with")
BACKEND = "array library: auto (default), numpy or cupy"


# what the owner of a served model decides, and the values that leave it to the owner
OWNED = {"recipe": "auto", "untrained_recipe": False, "profile": None, "backend": "auto", "embedding": "private",
         "frac": 16, "public_prefix": "auto"}
API_KEY = "SECFORMER_API_KEY"  # the environment's variable with the gateway's own key
SAMPLING = ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "stop", "seed")
LENGTH = 128  # tokens of an answer at most; what is written to a terminal may be long, and Ctrl-C ends it
SETTINGS = ".toml"  # ends the names of settings files


def model(p: argparse.ArgumentParser, *, or_settings: bool = False) -> None:
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder" + (
        "; or a client's settings file (TOML), to ask served parties" if or_settings else ""))


def check_model(args: argparse.Namespace) -> bool:
    """Whether MODEL is a client's settings file. It is a usage error to give such a file with an option that the
    model's owner decides. Raises InputError for a settings file that cannot be read."""
    path = Path(args.model)
    if path.is_dir() or not (path.is_file() or path.suffix == SETTINGS):
        return False
    files.readable(args.model, "MODEL", "`secformer init` writes a settings file for each role")
    for name, left in OWNED.items():
        if getattr(args, name, left) != left:
            args.usage(f"--{name.replace('_', '-')} is decided where the model is served; leave it out, or give a "
                       f"model's folder")
    return True


def texts(p: argparse.ArgumentParser) -> None:
    p.add_argument("texts", nargs="*", metavar="TEXT", help="texts; `-` reads standard input, one text per line "
                   "(empty lines are left out)")
    pairs(p, "two texts")


def pairs(p: argparse.ArgumentParser, what: str) -> None:
    p.add_argument("--pairs", metavar="FILE", help=f"UTF-8 file of text pairs: {what} per line, separated by a tab")


def truncation(p: argparse.ArgumentParser) -> None:
    p.add_argument("--truncation", action="store_true", help="cut texts that are too long for the model")


def inference(p: argparse.ArgumentParser, *, marked: bool = True) -> None:
    """What a secure run on a folder can be told. `marked`: results have a place for the guard's mark."""
    truncation(p)
    profile(p)
    running(p)
    guard(p, marked=marked)
    embedding(p)


def running(p: argparse.ArgumentParser) -> None:
    recipe(p)
    backend(p)
    frac(p)
    progress(p)


def profile(p: argparse.ArgumentParser) -> None:
    p.add_argument("--profile", metavar="FILE", help="range profile to use instead of the one beside the checkpoint")


def check_profile(args: argparse.Namespace) -> None:
    """Raises InputError where --profile names a file that cannot be read."""
    files.readable(args.profile, "--profile", "`secformer profile` writes one; leave the option out to use the one "
                                              "beside the checkpoint")


def recipe(p: argparse.ArgumentParser, *, purpose: str = "", untrained: bool = True) -> None:
    p.add_argument("--recipe", default="auto", metavar="R", help=purpose + RECIPE)
    if untrained:
        p.add_argument("--untrained-recipe", action="store_true",
                       help="allow a recipe whose functions the checkpoint was not trained for, to measure cost only; "
                            "the answers are meaningless")


def backend(p: argparse.ArgumentParser) -> None:
    p.add_argument("--backend", default="auto", metavar="B", help=BACKEND)


def prefix(p: argparse.ArgumentParser) -> None:
    """The public prefix of a model that generates text, and the system prompt that may be in it."""
    p.add_argument("--system", metavar="TEXT", help="system prompt; secret, unless --public-prefix says otherwise")
    p.add_argument("--public-prefix", choices=("auto", "none", "system"), default="auto",
                   help="first tokens of every text that the parties may know: auto: those that all prompts have, such "
                        "as the chat template's first ones, or BOS (default); none; system: up to the end of the "
                        "system prompt")


def public_prefix(args: argparse.Namespace) -> str | None:
    """The `public_prefix` of `Settings` that the options name. `system` without a system prompt is a usage error."""
    if args.public_prefix == "system" and args.system is None:
        args.usage("--public-prefix system makes the system prompt public; give it with --system")
    chosen: dict[str, str | None] = {"auto": "auto", "none": None, "system": args.system}
    return chosen[args.public_prefix]


def frac(p: argparse.ArgumentParser) -> None:
    p.add_argument("--frac", type=int, default=16, metavar="F",
                   help="fractional bits of numbers: 16 (default), or 12 to 15. 12 is the fast format: products in "
                        "32-bit words, errors about sixteen times as large (docs/accuracy.md)")


def progress(p: argparse.ArgumentParser) -> None:
    p.add_argument("--progress", action="store_true", help="show progress on stderr")


def embedding(p: argparse.ArgumentParser) -> None:
    p.add_argument("--embedding", choices=("private", "client"), default="private",
                   help="private: token ids are secret and looked up securely (default); client: the client holds the "
                        "embedding tables")


def sampling(p: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How a model that generates text chooses tokens."""
    group = p.add_argument_group("tokens", "how tokens are chosen, as in `generate` of transformers; greedily, unless "
                                           "--temperature, --top-k or --top-p is given")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help=f"the most tokens to generate ({LENGTH})")
    group.add_argument("--temperature", type=float, metavar="T", help="what logits are divided by; 0: greedy")
    group.add_argument("--top-k", type=int, metavar="K", help="sample from the K likeliest tokens (50); 0: from all")
    group.add_argument("--top-p", type=float, metavar="P",
                       help="sample from the fewest likeliest tokens whose probabilities sum up to P")
    group.add_argument("--repetition-penalty", type=float, metavar="R",
                       help="above 1, tokens that came before become less likely")
    group.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be given repeatedly")
    group.add_argument("--seed", type=int, metavar="N", help="equal seeds make equal choices")
    return group


def sampled(args: argparse.Namespace) -> Any:
    """The options of tokens that were given, by the names of `Sampling`, and the most tokens."""
    return {"max_new_tokens": LENGTH} | {name: value for name in SAMPLING
                                         if (value := getattr(args, name)) is not None}


def guard(p: argparse.ArgumentParser, *, off: bool = True, marked: bool = True) -> None:
    does = ("mark: their answers are marked (default); nan: their numbers are left out, too; raise: the command fails"
            if marked else "mark, raise: the command fails (mark is the default); nan: their results are left out")
    p.add_argument("--guard", choices=("mark", "nan", "raise", *(("off",) if off else ())), default="mark",
                   help=f"texts whose values leave the ranges that the computation is right in. {does}"
                        + ("; off: nothing is checked" if off else ""))


def settings(p: argparse.ArgumentParser, whose: str) -> None:
    p.add_argument("--settings", required=True, metavar="FILE", help=f"{whose} settings file (TOML)")


def supervised(p: argparse.ArgumentParser) -> None:
    p.add_argument("--supervised", action="store_true",
                   help="end when standard input ends, which `secformer workers` holds open")


def check_settings(args: argparse.Namespace) -> None:
    """Raises InputError where --settings names a file that cannot be read."""
    files.readable(args.settings, "--settings", "`secformer init` writes one for each role")


def cells(p: argparse.ArgumentParser) -> None:
    p.add_argument("--cells", required=True, metavar="FILE", help="the list of cells (TOML)")


def check_cells(file: str) -> None:
    """Raises InputError where a list of cells cannot be read."""
    files.readable(file, "--cells", "give a TOML file with a table [[cell]] for each cell")


def api_key_of(file: str | None) -> str | None:
    """The key that callers of the gateway must show: a file's, else the environment's, if there is one. Raises
    InputError."""
    if file is None:
        return os.environ.get(API_KEY)
    return files.text_of(file, "--api-key-file", "give a file that holds the key and nothing else").strip()
