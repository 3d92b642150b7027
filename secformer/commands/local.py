"""Commands that run everything on this machine: demo, infer, check, compare, profile, papers."""

from __future__ import annotations

import argparse
from pathlib import Path

from secformer.commands.common import (
    Commands,
    embedded,
    inputs,
    lines,
    model_and_texts,
    placed,
    running,
    show,
    texts_of,
    untrained,
)
from secformer.mpc.errors import InputError, RangeError, SettingsError

DEMO_TEXTS = (
    "A wonderful film, warm and funny from start to finish.",
    "The plot makes no sense and the acting is worse.",
    "A clumsy script, saved by two brilliant performances.",
)


def demo(args: argparse.Namespace) -> None:
    texts = texts_of(args.texts) or list(DEMO_TEXTS)
    from secformer import demo_model, plain_bert, render, secure_bert

    secure = secure_bert(demo_model(), texts, recipe=args.recipe, backend=args.backend, progress=args.progress,
                         untrained_recipe=args.untrained_recipe)
    plain = plain_bert(demo_model(), texts)
    show(args, render.demo_json(texts, secure, plain), render.demo(texts, secure, plain))


def infer(args: argparse.Namespace) -> None:
    texts = inputs(args)
    from secformer import render, secure_bert

    out = secure_bert(
        args.model, texts, recipe=args.recipe, backend=args.backend, profile=args.profile, progress=args.progress,
        embedding=args.embedding, truncation=args.truncation, untrained_recipe=args.untrained_recipe,
    )
    show(args, render.infer_json(texts, out), render.infer(texts, out))


def check(args: argparse.Namespace) -> None:
    texts = inputs(args)
    from secformer import render
    from secformer.models.run.check import check as check_texts

    report = check_texts(args.model, texts, recipe=args.recipe, profile=args.profile, truncation=args.truncation,
                         untrained_recipe=args.untrained_recipe)
    show(args, render.check_json(texts, report), render.check(texts, report))
    if not report.ok:
        raise RangeError("these texts leave the model's range profile, so a secure answer may be wrong without notice; "
                         "measure the model on such texts: secformer profile MODEL --texts FILE")


def compare(args: argparse.Namespace) -> None:
    texts = inputs(args)
    from secformer import render
    from secformer.models.run.comparison import compare as side_by_side
    from secformer.page import page
    from secformer.protocols.recipes import recipe_named

    recipes = None
    if args.recipes != "all":
        recipes = [recipe_named(name.strip()) for name in args.recipes.split(",") if name.strip()]
        if not recipes:
            raise SettingsError("--recipes names no recipe; give names with commas between them, or all")
    if args.html and not Path(args.html).resolve().parent.is_dir():
        raise InputError(f"--html {args.html}: there is no folder {Path(args.html).resolve().parent}; make it first")
    compared = side_by_side(args.model, texts, recipes, backend=args.backend, runs=args.runs, progress=args.progress,
                            truncation=args.truncation, embedding=args.embedding)
    if args.html:
        document = page(compared, [render.shown(t) for t in texts], render.comparison_notes(compared),
                        render.notes_of(compared))
        Path(args.html).write_text(document, encoding="utf-8")
    show(args, render.compare_json(texts, compared), render.compare(texts, compared))


def profile(args: argparse.Namespace) -> None:
    texts = lines(Path(args.texts))
    from secformer import render
    from secformer.models.families.folder import ModelFolder
    from secformer.models.ranges.profile import FILE, measure
    from secformer.models.run.prepare import choose_recipe

    folder = ModelFolder(args.model)
    measured = measure(folder, texts, recipe=choose_recipe(args.recipe, folder, untrained=True), truncation=True)
    path = Path(args.out) if args.out else folder.path / FILE
    measured.save(path)
    show(args, render.profile_json(measured, path), render.profile(measured, path))


def papers(args: argparse.Namespace) -> None:
    from secformer import render

    show(args, render.papers_json(), render.papers())


# ---- how they are called --------------------------------------------------------------------------------------------

_DEMO = """\
Securely classifies the sentiment of film-review sentences with the model that ships with the package, and shows the
plaintext model's answer beside it.

examples:
  secformer demo
  secformer demo "What a waste of two hours." "Loved every minute."
  echo "It has its moments." | secformer demo -
"""
_INFER = """\
Runs a local Hugging Face BERT folder (config.json, model.safetensors, tokenizer files) on texts. Architectures: plain
encoders, sequence and token classification, question answering, masked language modelling.

examples:
  secformer infer ./my-bert "First text." "Second text."
  secformer infer ./my-bert --pairs questions.tsv --json > answers.json     two texts a line, one tab between
  secformer infer ./my-bert --recipe secformer --progress - < texts.txt     the paper's protocols; texts from stdin
"""
_CHECK = """\
Runs the plaintext twin and tells whether these texts stay within the model's range profile, and how far the recipe's
answer is from the exact one. Fixed point cannot notice a value outside its range: check typical texts once. Leaves
with exit code 1 if a text is outside.

examples:
  secformer check ./my-bert "A typical text." "An extreme one!!!"
  secformer check ./my-bert --recipe secformer --json - < texts.txt
"""
_COMPARE = """\
Runs the recipes side by side on the model and these texts, each securely, and the exact model in plaintext:
agreement, seconds, bytes, rounds, and the time predicted on a LAN and a WAN. A recipe that cannot run on this model
gets a row that says why. Recipes with quadratic functions need a model distilled for them; on another model their
answers are off, and only their cost counts.

examples:
  secformer compare ./my-bert "A typical text." "Another one."
  secformer compare ./my-bert --recipes faithful,secformer,puma --html page.html - < texts.txt
  secformer compare ./my-bert --json "A typical text." > comparison.json
"""
_PROFILE = """\
Measures, with the plaintext twin, which ranges the model's values take on sample texts, and writes them as a range
profile beside the checkpoint, where later runs find it. The profile is public: do not measure secret texts. Texts
that are too long for the model are cut.

examples:
  secformer profile ./my-bert --texts samples.txt
  secformer profile ./my-bert --texts samples.txt --recipe secformer --out profile.json
"""
_PAPERS = """\
Lists the papers behind the protocols, and which functions implement what of them.

example:
  secformer papers
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("demo", demo, "secure sentiment classification with the shipped model", _DEMO)
    p.add_argument("texts", nargs="*", metavar="TEXT", help="sentences to classify; `-` reads lines from stdin")
    running(p)

    p = commands.add("infer", infer, "run a model folder on texts", _INFER)
    model_and_texts(p)
    running(p)
    embedded(p)

    p = commands.add("check", check, "do texts stay within the profile, and how accurate will it be?", _CHECK)
    model_and_texts(p)
    p.add_argument("--recipe", default="auto", metavar="R",
                   help="auto (default), faithful, secformer, mpcformer, mpcformer_2relu, puma or crypten")
    untrained(p)

    p = commands.add("compare", compare, "recipes side by side on your model and texts", _COMPARE)
    model_and_texts(p, profile=False)
    p.add_argument("--recipes", default="all", metavar="R,R", help="names with commas between them (default: all)")
    p.add_argument("--html", metavar="FILE", help="also write one page with pictures, which loads nothing else")
    p.add_argument("--runs", type=int, default=2, metavar="N",
                   help="times that each recipe runs; the last run's cost counts (default 2)")
    placed(p)
    embedded(p)

    p = commands.add("profile", profile, "measure a model's ranges on sample texts", _PROFILE)
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder")
    p.add_argument("--texts", required=True, metavar="FILE", help="UTF-8 text file, one text a line")
    p.add_argument("--recipe", default="auto", metavar="R",
                   help="measure for this recipe: values depend on it where a recipe means other functions")
    p.add_argument("--out", metavar="FILE", help="where to write it (default: beside the checkpoint)")

    commands.add("papers", papers, "the papers behind the protocols", _PAPERS)
