"""Commands that train and score classifiers: finetune, distill, evaluate."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secformer.commands import arguments
from secformer.commands.common import Commands, Run, show
from secformer.commands.files import folder, new_folder, readable
from secformer.mpc.errors import SettingsError

if TYPE_CHECKING:
    from secformer.models.distill.tasks import Examples, Task


def finetune(args: argparse.Namespace) -> None:
    task, train, dev = _training_data(args)
    from secformer.models.distill.device import device_named, use_threads
    from secformer.models.distill.finetune import TEACHER
    from secformer.models.distill.finetune import finetune as train_teacher
    from secformer.models.families.folder import ModelFolder
    from secformer.views import training

    use_threads(args.threads)
    stage = replace(TEACHER, **_given(args, epochs="epochs", rate="rate"), **_common(args))
    found = train_teacher(ModelFolder(args.model), task, train, dev, Path(args.out), stage=stage,
                          device=device_named(args.device), half=args.float16)
    show(args, training.trained_json(args.out, task.name, found), training.trained(args.out, task.name, found))


def distill(args: argparse.Namespace) -> None:
    from secformer.models.ranges.trained import DESIGNS

    if args.design not in DESIGNS:
        args.usage(f"--design must be one of {', '.join(DESIGNS)}, got {args.design!r}")
    task, train, dev = _training_data(args)
    from secformer.models.distill.device import device_named, use_threads
    from secformer.models.distill.student import INNER, LOGITS
    from secformer.models.distill.student import distill as train_student
    from secformer.models.families.folder import ModelFolder
    from secformer.views import training

    use_threads(args.threads)
    inner = replace(INNER, **_given(args, inner_epochs="epochs", inner_rate="rate"), **_common(args))
    logits = replace(LOGITS, **_given(args, epochs="epochs", rate="rate"), **_common(args))
    found = train_student(ModelFolder(args.teacher), DESIGNS[args.design], task, train, dev, Path(args.out),
                          inner=inner, logits=logits, labels_only=args.labels_only, device=device_named(args.device),
                          half=args.float16)
    show(args, training.trained_json(args.out, task.name, found), training.trained(args.out, task.name, found))


def evaluate(args: argparse.Namespace) -> None:
    from secformer.models.distill.evaluate import evaluate as score
    from secformer.models.distill.tasks import for_model, glue_file, own_task, read, task_named
    from secformer.models.families.folder import ModelFolder
    from secformer.views.training import evaluation, evaluation_json

    if args.limit is not None and args.limit < 1:
        raise SettingsError(f"--limit must be at least 1, got {args.limit}")
    if args.task:
        task = task_named(args.task)
        path = glue_file(args.data, task, "dev")
    else:
        path = Path(args.dev)
        task = own_task(path, _columns(args), args.label_column, regression=args.regression)
    task = for_model(task, ModelFolder(args.model).architecture, args.model)
    examples = read(path, task).first(args.limit)
    found = score(args.model, task, examples, secure=args.secure, recipe=args.recipe, backend=args.backend,
                  progress=args.progress, embedding=args.embedding, untrained_recipe=args.untrained_recipe)
    show(args, evaluation_json(str(args.model), found), evaluation(found))


# ---- data and settings ----------------------------------------------------------------------------------------------


def _training_data(args: argparse.Namespace) -> tuple[Task, Examples, Examples]:
    """The task, the training set and the dev set. Checks first that what training needs is installed."""
    from secformer.models.distill.requirements import require_training
    from secformer.models.distill.tasks import glue_file, own_task, read, some, task_named

    require_training()
    if args.task:
        task = task_named(args.task)
        train, dev = (glue_file(args.data, task, split) for split in ("train", "dev"))
    else:
        task = own_task(args.train, _columns(args), args.label_column, regression=args.regression)
        train, dev = Path(args.train), Path(args.dev)
    return task, some(read(train, task), args.texts, args.seed), read(dev, task)


def _told(command: Run, *, train: bool) -> Run:
    """The command, unless the data are not given in exactly one of the two ways; then a usage error."""

    def run(args: argparse.Namespace) -> None:
        own = [args.dev, args.text_columns, args.label_column, *([args.train] if train else [])]
        glue = [args.task, args.data]
        if not (all(glue) and not any(own)) and not (all(own) and not any(glue)):
            files = "--train, --dev" if train else "--dev"
            args.usage(f"give --task and --data for a GLUE task, or {files}, --text-columns and --label-column for "
                       f"your own files")
        folder(args.data, "--data", "give the folder with the task's files, or GLUE's folder")
        for option in ("train", "dev"):
            readable(getattr(args, option, None), f"--{option}", "give a .tsv or .jsonl file")
        new_folder(getattr(args, "out", None), "--out")
        command(args)

    return run


def _columns(args: argparse.Namespace) -> list[str]:
    return [name.strip() for name in args.text_columns.split(",") if name.strip()]


def _given(args: argparse.Namespace, **options: str) -> dict[str, Any]:
    """The options that were given, under the names of a stage's fields."""
    return {there: value for here, there in options.items() if (value := getattr(args, here)) is not None}


def _common(args: argparse.Namespace) -> dict[str, Any]:
    return {"seed": args.seed, "words": args.train_words, "half": args.bfloat16,
            **_given(args, batch="batch", longest="longest", checks="checks", dropout="dropout")}


# ---- how they are called --------------------------------------------------------------------------------------------

# `models.ranges.trained.DESIGNS` has the names. Importing it would import NumPy, which --help must not wait for.
DESIGN = "secformer: 2Quad attention, GeLU kept (default); mpcformer: 2Quad attention and quadratic GeLU"

_FINETUNE = """\
Trains a classifier on labels, with exact functions: a teacher for `secformer distill`. Training starts from a BERT
encoder or classifier. If training is interrupted, give the same command again to continue.

examples:
  secformer finetune ./my-bert --task sst2 --data glue --out teacher
  secformer finetune ./my-bert --train train.tsv --dev dev.tsv --text-columns review --label-column stars --out teacher
"""
_DISTILL = """\
Trains a student of the teacher that computes the functions of a design. Distillation has two stages: hidden states and
attention maps first, then logits. Writes an ordinary checkpoint, with its range profile, that names its recipe. If
training is interrupted, give the same command again to continue.

examples:
  secformer distill teacher --design secformer --task sst2 --data glue --out student
  secformer distill teacher --design mpcformer --task sst2 --data glue --out other --inner-epochs 5 --epochs 2
  secformer distill teacher --design secformer --task sst2 --data glue --out plain --labels-only    no distillation
"""
_EVALUATE = """\
Scores a classifier on a labelled set with GLUE's metrics, in plaintext. With --secure it also scores the secure
computation, and reports how many labels agree and what the computation cost. Does not need torch.

examples:
  secformer evaluate student --task sst2 --data glue
  secformer evaluate student --task sst2 --data glue --secure --limit 200 --json > result.json
  secformer evaluate student --dev dev.jsonl --text-columns question,passage --label-column answer --secure
"""


def add(commands: Commands) -> None:
    """Adds these commands to the command line."""
    p = commands.add("finetune", _told(finetune, train=True), "train a classifier on labels, as a teacher", _FINETUNE)
    p.add_argument("model", metavar="MODEL", help="local Hugging Face folder of an encoder or a classifier")
    _data(p, train=True)
    _training(p)

    p = commands.add("distill", _told(distill, train=True), "train a student for secure inference", _DISTILL)
    p.add_argument("teacher", metavar="TEACHER", help="folder of a classifier that was fine-tuned on the task")
    p.add_argument("--design", default="secformer", metavar="D", help=DESIGN)
    _data(p, train=True)
    p.add_argument("--inner-epochs", type=float, metavar="N", help="passes over the texts in the first stage (2)")
    p.add_argument("--inner-rate", type=float, metavar="R", help="learning rate of the first stage (2e-4)")
    p.add_argument("--labels-only", action="store_true", help="learn from labels instead of the teacher")
    _training(p)

    p = commands.add("evaluate", _told(evaluate, train=False), "score a classifier on labelled texts", _EVALUATE)
    p.add_argument("model", metavar="MODEL", help="folder of a classifier")
    _data(p, train=False)
    p.add_argument("--secure", action="store_true", help="also score the model on shares")
    p.add_argument("--limit", type=int, metavar="N", help="score the first N examples only")
    arguments.recipe(p)
    arguments.backend(p)
    arguments.progress(p)
    arguments.embedding(p)


def _data(p: argparse.ArgumentParser, *, train: bool) -> None:
    group = p.add_argument_group("data", "a GLUE task, or your own files: .tsv (a header line, columns separated by "
                                         "tabs, no quoting)\nor .jsonl (one object per line)")
    group.add_argument("--task", metavar="T", help="sst2, cola, rte, mrpc or stsb")
    group.add_argument("--data", metavar="DIR", help="folder with the task's train.tsv and dev.tsv, or GLUE's folder")
    if train:
        group.add_argument("--train", metavar="FILE", help="your training examples")
    group.add_argument("--dev", metavar="FILE", help="your dev examples")
    group.add_argument("--text-columns", metavar="A[,B]", help="column of the text, or the two columns of a pair")
    group.add_argument("--label-column", metavar="C", help="column of the label")
    group.add_argument("--regression", action="store_true", help="the label is a number")


def _training(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", metavar="DIR", required=True, help="folder for the result")
    p.add_argument("--epochs", type=float, metavar="N", help="passes over the texts")
    p.add_argument("--rate", type=float, metavar="R", help="highest learning rate")
    p.add_argument("--batch", type=int, metavar="N", help="texts per step (32)")
    p.add_argument("--texts", type=int, metavar="N", help="train on N texts, drawn at random with --seed")
    p.add_argument("--longest", type=int, metavar="N", help="cut training texts to N tokens (128)")
    p.add_argument("--dropout", type=float, metavar="P", help="dropout rate for the results of GeLU and attention")
    p.add_argument("--checks", type=int, metavar="N", help="how often per epoch the dev metric is computed (1)")
    p.add_argument("--train-words", action="store_true", help="train the word table too")
    p.add_argument("--bfloat16", action="store_true",
                   help="compute matrix products in bfloat16, which is faster on processors that have it")
    p.add_argument("--float16", action="store_true", help="store float16 weights")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all random choices (0)")
    p.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu or cuda")
    p.add_argument("--threads", type=int, metavar="N", help="processor threads for torch")
