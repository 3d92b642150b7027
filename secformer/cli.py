"""The command line. Parses, calls the library, prints; what the output looks like is `render`'s business.

Exit codes: 0 fine, 1 an error (one line on stderr; --debug shows the traceback), 2 wrong usage, 130 Ctrl-C.
Everything heavy is imported inside the command that needs it, after its input was read, so that --help and a misuse
are answered at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secformer import __version__
from secformer.mpc.errors import InputError, RangeError, SecformerError, SettingsError

if TYPE_CHECKING:
    from rich.console import RenderableType

FINE, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130
DEMO_TEXTS = (
    "A wonderful film, warm and funny from start to finish.",
    "The plot makes no sense and the acting is worse.",
    "A clumsy script, saved by two brilliant performances.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Usage errors leave through SystemExit(2), as argparse does."""
    args = _parser().parse_args(argv)
    try:
        args.command(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("interrupted", args.debug)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left: nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except (SecformerError, OSError) as error:
        _complain(f"error: {error}", args.debug)
        return ERROR
    except Exception as error:  # a defect of ours, still told in one line
        _complain(f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)", args.debug)
        return ERROR
    return FINE


# ---- commands --------------------------------------------------------------------------------------------------------


def demo(args: argparse.Namespace) -> None:
    texts = _texts(args.texts) or list(DEMO_TEXTS)
    from secformer import demo_model, plain_bert, render, secure_bert

    secure = secure_bert(demo_model(), texts, recipe=args.recipe, backend=args.backend, progress=args.progress)
    plain = plain_bert(demo_model(), texts)
    _show(args, render.demo_json(texts, secure, plain), render.demo(texts, secure, plain))


def infer(args: argparse.Namespace) -> None:
    texts = _inputs(args)
    from secformer import render, secure_bert

    out = secure_bert(
        args.model, texts, recipe=args.recipe, backend=args.backend, profile=args.profile, progress=args.progress,
        embedding=args.embedding, truncation=args.truncation,
    )
    _show(args, render.infer_json(texts, out), render.infer(texts, out))


def check(args: argparse.Namespace) -> None:
    texts = _inputs(args)
    from secformer import render
    from secformer.models.check import check as check_texts

    report = check_texts(args.model, texts, recipe=args.recipe, profile=args.profile, truncation=args.truncation)
    _show(args, render.check_json(texts, report), render.check(texts, report))
    if not report.ok:
        raise RangeError("these texts leave the model's range profile, so a secure answer may be wrong without notice; "
                         "measure the model on such texts: secformer profile MODEL --texts FILE")


def compare(args: argparse.Namespace) -> None:
    texts = _inputs(args)
    from secformer import render
    from secformer.models.comparison import compare as side_by_side
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
    _show(args, render.compare_json(texts, compared), render.compare(texts, compared))


def profile(args: argparse.Namespace) -> None:
    texts = _lines(Path(args.texts))
    from secformer import render
    from secformer.models.choices import choose_recipe
    from secformer.models.folder import ModelFolder
    from secformer.models.profile import FILE, measure

    folder = ModelFolder(args.model)
    measured = measure(folder, texts, recipe=choose_recipe(args.recipe, folder), truncation=True)
    path = Path(args.out) if args.out else folder.path / FILE
    measured.save(path)
    _show(args, render.profile_json(measured, path), render.profile(measured, path))


def papers(args: argparse.Namespace) -> None:
    from secformer import render

    _show(args, render.papers_json(), render.papers())


# ---- input and output ------------------------------------------------------------------------------------------------


def _texts(given: Sequence[str]) -> list[str]:
    """The texts of the command line; `-` stands for the lines of standard input."""
    texts: list[str] = []
    for text in given:
        if text == "-":
            texts += [line for line in sys.stdin.read().splitlines() if line.strip()]
        else:
            texts.append(text)
    if given and not texts:
        raise InputError("standard input holds no text; give one text a line")
    return texts


def _inputs(args: argparse.Namespace) -> list[str] | list[tuple[str, str]]:
    """Texts or, with --pairs, pairs. Neither or both is a usage error."""
    if bool(args.texts) == bool(args.pairs):
        args.usage("give either texts (`-` reads them from standard input) or --pairs FILE")
    return _pairs(Path(args.pairs)) if args.pairs else _texts(args.texts)


def _pairs(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise InputError(f"{path}: every line holds two texts with one tab between them; text line {number} has "
                             f"{len(columns)} column(s)")
        pairs.append((columns[0], columns[1]))
    return pairs


def _lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file that hold text."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it") from error
    if not lines:
        raise InputError(f"{path} holds no text; put one text on a line")
    return [line.rstrip("\r") for line in lines]


def _show(args: argparse.Namespace, data: dict[str, Any], view: RenderableType) -> None:
    if args.json:
        print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        from rich.console import Console

        wide = None if sys.stdout.isatty() else 100
        Console(width=wide).print(view)


def _complain(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"secformer: {' '.join(message.split())}", file=sys.stderr)


# ---- the parser ------------------------------------------------------------------------------------------------------

_ABOUT = """\
Run BERT on texts that nobody sees, with weights that nobody sees: two servers compute on additive shares, a dealer
that sees no data supplies randomness. Here all three run in this process, each with its own data; the answers are the
plaintext model's, and the cost of the protocol is printed with them.
"""
_EXAMPLES = """\
start here:
  secformer demo                                  the shipped sentiment model on three sentences
  secformer infer ./my-bert "A sentence."         any local Hugging Face BERT folder
  secformer check ./my-bert "A sentence."         will this text stay within the model's measured ranges?
  secformer compare ./my-bert "A sentence."       what does each recipe answer, and what does it cost?
  secformer infer --help                          every command explains itself

exit codes: 0 fine, 1 error (one line on stderr; --debug shows the traceback), 2 wrong usage, 130 interrupted
"""
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


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    parser = argparse.ArgumentParser(
        prog="secformer", description=_ABOUT, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(debug=False)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"secformer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], summary: str, text: str) -> Any:
        about, _, examples = text.partition("\n\n")
        sub = commands.add_parser(
            name, parents=[common], help=summary, description=about, epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=run, usage=sub.error)
        sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
        return sub

    p = command("demo", demo, "secure sentiment classification with the shipped model", _DEMO)
    p.add_argument("texts", nargs="*", metavar="TEXT", help="sentences to classify; `-` reads lines from stdin")
    _running(p)

    p = command("infer", infer, "run a model folder on texts", _INFER)
    _model_and_texts(p)
    _running(p)
    _embedded(p)

    p = command("check", check, "do texts stay within the profile, and how accurate will it be?", _CHECK)
    _model_and_texts(p)
    p.add_argument("--recipe", default="auto", metavar="R",
                   help="auto (default), faithful, secformer, mpcformer, mpcformer_2relu, puma or crypten")

    p = command("compare", compare, "recipes side by side on your model and texts", _COMPARE)
    _model_and_texts(p, profile=False)
    p.add_argument("--recipes", default="all", metavar="R,R", help="names with commas between them (default: all)")
    p.add_argument("--html", metavar="FILE", help="also write one page with pictures, which loads nothing else")
    p.add_argument("--runs", type=int, default=2, metavar="N",
                   help="times that each recipe runs; the last run's cost counts (default 2)")
    _placed(p)
    _embedded(p)

    p = command("profile", profile, "measure a model's ranges on sample texts", _PROFILE)
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder")
    p.add_argument("--texts", required=True, metavar="FILE", help="UTF-8 text file, one text a line")
    p.add_argument("--recipe", default="auto", metavar="R",
                   help="measure for this recipe: values depend on it where a recipe means other functions")
    p.add_argument("--out", metavar="FILE", help="where to write it (default: beside the checkpoint)")

    command("papers", papers, "the papers behind the protocols", _PAPERS)
    return parser


def _model_and_texts(p: argparse.ArgumentParser, *, profile: bool = True) -> None:
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder")
    p.add_argument("texts", nargs="*", metavar="TEXT", help="texts; `-` reads lines from standard input")
    p.add_argument("--pairs", metavar="FILE", help="UTF-8 file of text pairs: two texts a line, a tab between them")
    if profile:
        p.add_argument("--profile", metavar="FILE",
                       help="range profile to use instead of the one beside the checkpoint")
    p.add_argument("--truncation", action="store_true", help="cut texts that are too long for the model")


def _running(p: argparse.ArgumentParser) -> None:
    p.add_argument("--recipe", default="auto", metavar="R",
                   help="auto: what the checkpoint was trained for (default); faithful: plaintext accuracy on any "
                        "checkpoint; secformer: the paper's protocols; puma, crypten, mpcformer, mpcformer_2relu: the "
                        "systems that it compares with")
    _placed(p)


def _placed(p: argparse.ArgumentParser) -> None:
    p.add_argument("--backend", default="auto", metavar="B", help="auto (default), numpy or cupy")
    p.add_argument("--progress", action="store_true", help="show progress on stderr")


def _embedded(p: argparse.ArgumentParser) -> None:
    p.add_argument("--embedding", choices=("private", "client"), default="private",
                   help="private: token ids are secret and looked up securely (default); client: the client holds the "
                        "embedding tables")
