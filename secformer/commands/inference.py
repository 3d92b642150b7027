"""Commands for a model on this machine: demo, infer, check, compare, profile; and papers."""

from __future__ import annotations

import argparse
from pathlib import Path

from secformer.commands import arguments
from secformer.commands.common import Commands, inputs, show, texts_of
from secformer.commands.files import lines, writable
from secformer.mpc.errors import InputError, RangeError, SettingsError

DEMO_TEXTS = (
    "A wonderful film, warm and funny from start to finish.",
    "The plot makes no sense and the acting is worse.",
    "A clumsy script, saved by two brilliant performances.",
)


def demo(args: argparse.Namespace) -> None:
    texts = texts_of(args.texts) or list(DEMO_TEXTS)
    from secformer import demo_model, plain_model, secure_model
    from secformer.commands.refused import answered, told
    from secformer.models.run.progress import shown
    from secformer.views import answers

    chosen = {"recipe": args.recipe, "backend": args.backend, "untrained_recipe": args.untrained_recipe,
              "frac": args.frac}
    with shown(args.progress) as tell:  # compiles the kernels and loads libraries, which no cost should count
        secure_model(demo_model(), list(DEMO_TEXTS), **chosen,
                    progress=lambda what, done, total: tell("warming up", done, total))
    plain = answered(lambda some: plain_model(demo_model(), some), texts)
    secure = None if plain.result is None else secure_model(demo_model(), plain.texts, progress=args.progress, **chosen)
    show(args, answers.demo_json(plain.texts, secure, plain.result, plain.refused),
         answers.demo(plain.texts, secure, plain.result, plain.refused))
    if plain.refused:
        raise InputError(told(plain.refused, texts))


def infer(args: argparse.Namespace) -> None:
    texts = inputs(args)
    arguments.check_profile(args)
    from secformer.commands.asked import in_process
    from secformer.views import answers

    out = in_process(args, texts, args.progress)
    show(args, answers.infer_json(texts, out), answers.infer(texts, out))


def check(args: argparse.Namespace) -> None:
    texts = inputs(args)
    arguments.check_profile(args)
    from secformer.commands.refused import answered, told
    from secformer.models.run.check import Check
    from secformer.models.run.check import check as check_texts
    from secformer.views import ranges
    from secformer.views.texts import Texts

    def run(some: Texts) -> Check:
        report = check_texts(args.model, some, recipe=args.recipe, profile=args.profile, truncation=args.truncation,
                             untrained_recipe=args.untrained_recipe, frac=args.frac)
        if report.problem and len(texts) > 1:
            raise RangeError(report.problem)  # some text stops the twin: find it, and check the others
        return report

    found = answered(run, texts)
    show(args, ranges.check_json(found.texts, found.result, found.refused),
         ranges.check(found.texts, found.result, found.refused))
    if found.refused:
        raise InputError(told(found.refused, texts))
    if found.result is not None and not found.result.ok:
        raise RangeError("these texts leave the model's range profile, so secure answers may be wrong, and are then "
                         "marked; measure the model on such texts: secformer profile MODEL --texts FILE")


def compare(args: argparse.Namespace) -> None:
    texts = inputs(args)
    writable(args.html, "--html")
    from secformer.models.run.comparison import compare as side_by_side
    from secformer.protocols.recipes import recipe_named
    from secformer.views.comparison import comparison, comparison_json
    from secformer.views.page import page

    recipes = None
    if args.recipes != "all":
        recipes = [recipe_named(name.strip()) for name in args.recipes.split(",") if name.strip()]
        if not recipes:
            raise SettingsError("--recipes names no recipe; give names separated by commas, or all")
    compared = side_by_side(args.model, texts, recipes, backend=args.backend, runs=args.runs, progress=args.progress,
                            truncation=args.truncation, embedding=args.embedding, frac=args.frac)
    if args.html:
        Path(args.html).write_text(page(compared, texts), encoding="utf-8")
    show(args, comparison_json(texts, compared), comparison(texts, compared))


def profile(args: argparse.Namespace) -> None:
    texts = lines(args.texts, "--texts")
    writable(args.out, "--out")
    public = arguments.public_prefix(args)
    from secformer.models.families.folder import ModelFolder
    from secformer.models.ranges.profile import FILE, measure
    from secformer.models.run.prefix import begin
    from secformer.models.run.prepare import choose_recipe
    from secformer.views import ranges

    folder = ModelFolder(args.model)
    begin(folder, public)
    measured = measure(folder, texts, recipe=choose_recipe(args.recipe, folder, untrained=True), truncation=True)
    path = Path(args.out) if args.out else folder.path / FILE
    measured.save(path)
    show(args, ranges.profile_json(measured, path), ranges.profile(measured, path))


def papers(args: argparse.Namespace) -> None:
    from secformer.views import papers as view

    show(args, view.papers_json(), view.papers())


# ---- how they are called --------------------------------------------------------------------------------------------

_DEMO = """\
Classifies the sentiment of film-review sentences securely, with the model that ships with the package. Shows the
plaintext model's answer beside the secure one. A first run, on sentences of its own, keeps what happens once out of
the cost.

examples:
  secformer demo
  secformer demo "What a waste of two hours." "Loved every minute."
  echo "It has its moments." | secformer demo -
"""
_INFER = """\
Runs a local Hugging Face folder of an encoder (config.json, model.safetensors, tokenizer files) on texts, securely.
Supported are encoders without a head, sequence and token classification, question answering, masked language
modelling, next sentence prediction (which needs pairs), and models for pre-training. Prints what the model answers; the
commands `embed` to `answer` print the results of one task each.

examples:
  secformer infer ./my-bert "First text." "Second text."
  secformer infer ./my-bert --pairs questions.tsv --json > answers.json     two texts per line, separated by a tab
  secformer infer ./my-bert --recipe secformer --progress - < texts.txt     the paper's protocols; texts from stdin
"""
_CHECK = """\
Runs the recipe in plaintext. Reports whether these texts stay within the model's range profile, and how far the
recipe's answer is from the exact one. A secure run marks texts whose values leave their ranges; check typical texts
once, before that happens. The exit code is 1 if any text leaves the profile, or cannot be held by the model at all.

examples:
  secformer check ./my-bert "A typical text." "An extreme one!!!"
  secformer check ./my-bert --recipe secformer --json - < texts.txt
"""
_COMPARE = """\
Runs each recipe securely on the model and these texts, and the exact model in plaintext. Reports agreement, seconds,
bytes, rounds, and the predicted time on a LAN and a WAN. If a recipe cannot run on this model, its row says why.
Recipes with quadratic functions need a model distilled for them; on another model only their cost is meaningful.

examples:
  secformer compare ./my-bert "A typical text." "Another one."
  secformer compare ./my-bert --recipes faithful,secformer,puma --html page.html - < texts.txt
  secformer compare ./my-bert --json "A typical text." > comparison.json
"""
_PROFILE = """\
Runs the model in plaintext on sample texts and measures the ranges of its values. Writes them as a range profile
beside the checkpoint, where later runs find it. The profile is public: do not measure secret texts. Texts that are too
long for the model are cut.

examples:
  secformer profile ./my-bert --texts samples.txt
  secformer profile ./my-bert --texts samples.txt --recipe secformer --out profile.json
"""
_PAPERS = """\
Lists the papers behind the protocols, and what each function takes from them.

example:
  secformer papers
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("demo", demo, "classify sentiment securely with the shipped model", _DEMO)
    p.add_argument("texts", nargs="*", metavar="TEXT",
                   help="sentences to classify; `-` reads one sentence per line from standard input")
    arguments.running(p)

    p = commands.add("infer", infer, "run a model folder on texts securely", _INFER)
    arguments.model(p)
    arguments.texts(p)
    arguments.inference(p)

    p = commands.add("check", check, "compare texts with the range profile, and the recipe with exact functions",
                     _CHECK)
    _model_and_texts(p)
    arguments.profile(p)
    arguments.recipe(p)
    arguments.frac(p)

    p = commands.add("compare", compare, "compare the recipes on your model and texts", _COMPARE)
    _model_and_texts(p)
    p.add_argument("--recipes", default="all", metavar="R,R",
                   help="names of recipes, separated by commas (default: all that `secformer infer --help` lists)")
    p.add_argument("--html", metavar="FILE", help="also write a web page with pictures, as a single file")
    p.add_argument("--runs", type=int, default=2, metavar="N",
                   help="number of runs per recipe; the cost is that of the last run (default 2)")
    arguments.backend(p)
    arguments.frac(p)
    arguments.progress(p)
    arguments.embedding(p)

    p = commands.add("profile", profile, "measure a model's ranges on sample texts", _PROFILE)
    arguments.model(p)
    p.add_argument("--texts", required=True, metavar="FILE", help="UTF-8 text file, one text per line")
    arguments.recipe(p, purpose="measure for this recipe. ", untrained=False)
    p.add_argument("--out", metavar="FILE", help="file to write (default: beside the checkpoint)")
    arguments.prefix(p)

    commands.add("papers", papers, "list the papers behind the protocols", _PAPERS)


def _model_and_texts(p: argparse.ArgumentParser) -> None:
    arguments.model(p)
    arguments.texts(p)
    arguments.truncation(p)
