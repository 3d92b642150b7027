"""Arguments that several commands take, each declared once."""

from __future__ import annotations

import argparse

from secformer.commands import files

# Importing the recipes, the designs or the backends would import NumPy, which --help must not wait for. Tests compare
# these names with the code's.
RECIPE = ("auto: the recipe that config.json names, or faithful if it names none (auto is the default); faithful: "
          "plaintext accuracy on any checkpoint; secformer: the paper's protocols; puma, crypten, mpcformer, "
          "mpcformer_2relu: the systems that the paper compares with")
BACKEND = "array library: auto (default), numpy or cupy"


def model(p: argparse.ArgumentParser) -> None:
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder")


def texts(p: argparse.ArgumentParser) -> None:
    p.add_argument("texts", nargs="*", metavar="TEXT", help="texts; `-` reads one text per line from standard input")
    p.add_argument("--pairs", metavar="FILE", help="UTF-8 file of text pairs: two texts per line, separated by a tab")


def truncation(p: argparse.ArgumentParser) -> None:
    p.add_argument("--truncation", action="store_true", help="cut texts that are too long for the model")


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


def progress(p: argparse.ArgumentParser) -> None:
    p.add_argument("--progress", action="store_true", help="show progress on stderr")


def embedding(p: argparse.ArgumentParser) -> None:
    p.add_argument("--embedding", choices=("private", "client"), default="private",
                   help="private: token ids are secret and looked up securely (default); client: the client holds the "
                        "embedding tables")


def guard(p: argparse.ArgumentParser, *, off: bool = True) -> None:
    p.add_argument("--guard", choices=("mark", "nan", "raise", *(("off",) if off else ())), default="mark",
                   help="texts whose values leave the ranges that the computation is right in. mark: their answers are "
                        "marked (default); nan: their numbers are left out, too; raise: the command fails"
                        + ("; off: nothing is checked" if off else ""))


def settings(p: argparse.ArgumentParser, whose: str) -> None:
    p.add_argument("--settings", required=True, metavar="FILE", help=f"{whose} settings file (TOML)")


def check_settings(args: argparse.Namespace) -> None:
    """Raises InputError where --settings names a file that cannot be read."""
    files.readable(args.settings, "--settings", "`secformer init` writes one for each role")
