"""Commands for single tasks, on a folder or on a served model: embed, rerank, classify, entities, fill-mask, answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from secformer.commands import arguments
from secformer.commands.common import Commands, inputs, show, texts_of

if TYPE_CHECKING:
    from secformer.models.run.asked import Asked
    from secformer.models.run.output import SecureOutput

ALL = "all"  # stands for a number of results without a limit


def embed(args: argparse.Namespace) -> None:
    texts = inputs(args)
    found, out = _ask(args, lambda model: model.embed(texts, progress=args.progress))
    from secformer.views import answers, tasks

    show(args, tasks.facts(out, texts=texts, embeddings=found), answers.infer(texts, out))


def rerank(args: argparse.Namespace) -> None:
    query, *documents = texts_of([args.query, *args.texts])
    if not documents:
        args.usage("give a query, and at least one document to rank; `-` reads documents from standard input")
    found, out = _ask(args, lambda model: model.rerank(query, documents, args.top_k, progress=args.progress))
    from secformer.views import tasks

    show(args, tasks.facts(out, query=query, documents=documents, ranking=found), tasks.ranking(found, out))


def classify(args: argparse.Namespace) -> None:
    texts = inputs(args)
    found, out = _ask(args, lambda model: model.classify(texts, args.top_k, progress=args.progress))
    found = [each if each is None or isinstance(each, list) else [each] for each in found]
    from secformer.views import tasks

    show(args, tasks.facts(out, texts=texts, labels=found), tasks.labels(texts, found, out))


def entities(args: argparse.Namespace) -> None:
    texts = inputs(args)
    found, out = _ask(args, lambda model: model.entities(texts, progress=args.progress))
    from secformer.views import tasks

    show(args, tasks.facts(out, texts=texts, entities=found), tasks.entities(texts, found, out))


def fill_mask(args: argparse.Namespace) -> None:
    texts = inputs(args)
    found, out = _ask(args, lambda model: model.fill_mask(texts, args.top_k, progress=args.progress))
    from secformer.views import tasks

    show(args, tasks.facts(out, texts=texts, words=found), tasks.words(texts, found, out))


def answer(args: argparse.Namespace) -> None:
    if args.question is not None and (args.pairs is not None or not args.texts):
        args.usage("give a question and passages, or --pairs FILE")
    if args.question is None:
        pairs = inputs(args)
    else:
        question, *passages = texts_of([args.question, *args.texts])
        if not passages:
            args.usage("give a question, and at least one passage; `-` reads passages from standard input")
        pairs = [(question, passage) for passage in passages]
    found, out = _ask(args, lambda model: model.answer(*map(list, zip(*pairs, strict=True)), progress=args.progress))
    from secformer.views import tasks

    show(args, tasks.facts(out, texts=pairs, answers=found), tasks.spans(pairs, found, out))


def _ask(args: argparse.Namespace, task: Callable[[Asked], Any]) -> tuple[Any, SecureOutput]:
    """The results of a task, and the whole output that they come from."""
    served = arguments.check_model(args)
    arguments.check_profile(args)
    from secformer.commands.asked import asked

    with asked(args, served=served) as model:
        return task(model), model.output


# ---- how they are called --------------------------------------------------------------------------------------------

_SERVED = """\
MODEL is a local Hugging Face folder, which runs in this process, or a client's settings file, as `secformer query`
takes it.
"""
_EMBED = f"""\
Computes the embedding of each text, securely: what the modules of a sentence-transformers folder make, and otherwise
the mean over a text's tokens, of unit length. The table shows cosines to the first text; --json has the numbers.
{_SERVED}
examples:
  secformer embed ./my-encoder "First text." "Second text."
  secformer embed client.toml --json - < texts.txt > embeddings.json
"""
_RERANK = f"""\
Ranks documents by how well they fit a query, securely, best first. The model is a cross-encoder: a sequence classifier
with one output.
{_SERVED}
examples:
  secformer rerank ./my-reranker "how to bake bread" "Flour, water, salt." "A history of ovens."
  secformer rerank client.toml "how to bake bread" --top-k 3 - < documents.txt
"""
_CLASSIFY = f"""\
Classifies texts or pairs of texts, securely. The model is a sequence classifier.
{_SERVED}
examples:
  secformer classify ./my-classifier "First text." "Second text."
  secformer classify client.toml --top-k all --json --pairs pairs.tsv
"""
_ENTITIES = f"""\
Finds entities, such as names and places, in texts, securely. Characters are counted from 0. The model is a token
classifier.
{_SERVED}
examples:
  secformer entities ./my-tagger "Sarah lives in London."
  secformer entities client.toml --json - < texts.txt
"""
_FILL_MASK = f"""\
Tells the likeliest words for each mask of a text, securely. The model is a masked language model.
{_SERVED}
examples:
  secformer fill-mask ./my-bert "Paris is the [MASK] of France."
  secformer fill-mask client.toml --top-k 1 --json - < texts.txt
"""
_ANSWER = f"""\
Finds the part of a passage that answers a question, securely. With several passages, each is searched for itself. The
model is a question answering model.
{_SERVED}
examples:
  secformer answer ./my-reader "Who sat?" "The cat sat on the mat."
  secformer answer client.toml --json --pairs questions.tsv
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("embed", embed, "compute embeddings of texts", _EMBED)
    _texts(p)

    p = commands.add("rerank", rerank, "rank documents for a query", _RERANK)
    arguments.model(p, or_settings=True)
    p.add_argument("query", metavar="QUERY", help="what the documents are ranked for")
    p.add_argument("texts", nargs="*", metavar="DOCUMENT",
                   help="documents; `-` reads one document per line from standard input")
    _top_k(p, None, "how many documents to show")
    arguments.inference(p, marked=False)

    p = commands.add("classify", classify, "classify texts", _CLASSIFY)
    _top_k(p, 1, "how many labels to show per text")
    _texts(p)

    p = commands.add("entities", entities, "find names and other entities in texts", _ENTITIES)
    _texts(p)

    p = commands.add("fill-mask", fill_mask, "find words for the masks of texts", _FILL_MASK)
    _top_k(p, 5, "how many words to show per mask")
    _texts(p)

    p = commands.add("answer", answer, "answer questions from passages", _ANSWER)
    arguments.model(p, or_settings=True)
    p.add_argument("question", nargs="?", metavar="QUESTION", help="what is asked of each passage")
    p.add_argument("texts", nargs="*", metavar="PASSAGE",
                   help="passages; `-` reads one passage per line from standard input")
    arguments.pairs(p, "a question and its passage")
    arguments.inference(p, marked=False)


def _texts(p: argparse.ArgumentParser) -> None:
    arguments.model(p, or_settings=True)
    arguments.texts(p)
    arguments.inference(p, marked=False)


def _top_k(p: argparse.ArgumentParser, default: int | None, about: str) -> None:
    p.add_argument("--top-k", type=number, default=default, metavar="N",
                   help=f"{about}: a number, or {ALL} (default: {default or ALL})")


def number(text: str) -> int | None:
    return None if text == ALL else int(text)
