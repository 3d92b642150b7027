"""Accuracy of students by design, in secure runs: trains the models that are missing, evaluates, writes the table.

    python bench/distill.py --data glue --backbone all-MiniLM-L6-v2 --work models --task stsb
    python bench/distill.py --data glue --work models --task stsb --only secformer --train-only
    python bench/distill.py --data glue --work models --task stsb --swapped

For each task, a teacher is fine-tuned, and four students are made of it: with SecFormer's and with MPCFormer's design,
each distilled and, for comparison, trained on labels alone. Then every model runs in plaintext and securely on the
first examples of the dev set. The teacher runs securely with the recipe `faithful`. --swapped scores the teacher's own
weights under the designs' functions, without any training, in float32. All other steps are commands of secformer. A
model that the work folder already holds is not made again. SETTINGS are sized for two processor cores.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report import RESULTS, record

TEACHER, STUDENTS = "teacher", ("secformer", "mpcformer", "secformer-labels", "mpcformer-labels")
# by task: the teacher, both stages of a student, a student that learns from labels, and what all students share
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "sst2": {
        "teacher": "--epochs 1 --batch 64 --checks 4",
        "distilled": "--inner-epochs 1 --inner-rate 3e-4 --epochs 1 --rate 1e-4",
        "labels": "--epochs 1 --rate 1e-4",
        "students": "--texts 20000 --batch 64 --checks 2",
    },
    "stsb": {
        "teacher": "--epochs 4 --rate 2e-4",
        "distilled": "--inner-epochs 1 --inner-rate 3e-4 --epochs 1 --rate 1e-4",
        "labels": "--epochs 1 --rate 1e-4",
        "students": "--checks 2",
    },
    "cola": {
        "teacher": "--epochs 4 --rate 1e-4",
        "distilled": "--inner-epochs 2 --inner-rate 3e-4 --epochs 1 --rate 1e-4",
        "labels": "--epochs 2 --rate 1e-4",
        "students": "--batch 64 --checks 2",
    },
    "mrpc": {
        "teacher": "--epochs 3 --rate 2e-4",
        "distilled": "--inner-epochs 1 --inner-rate 3e-4 --epochs 1 --rate 1e-4",
        "labels": "--epochs 1 --rate 1e-4",
        "students": "--texts 1500 --checks 2",
    },
    "rte": {
        "teacher": "--epochs 3 --rate 2e-4",
        "distilled": "--inner-epochs 1 --inner-rate 3e-4 --epochs 1 --rate 1e-4",
        "labels": "--epochs 1 --rate 1e-4",
        "students": "--checks 2",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="GLUE's folder")
    parser.add_argument("--backbone", type=Path, help="folder of the pretrained encoder that teachers start from")
    parser.add_argument("--work", required=True, type=Path, help="folder for the models")
    parser.add_argument("--task", required=True, choices=sorted(SETTINGS))
    parser.add_argument("--only", help=f"models, with commas between them: {', '.join((TEACHER, *STUDENTS))}")
    parser.add_argument("--limit", type=int, default=200, help="number of examples in the secure runs")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--swapped", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--float32", action="store_true",
                        help="train in float32: some processors multiply bfloat16 fifty times more slowly")
    args = parser.parse_args()
    if args.swapped:
        keep("swapped", args.task, swapped(args))
        return
    names = args.only.split(",") if args.only else [TEACHER, *STUDENTS]
    for name in names:
        if not (args.work / f"{args.task}-{name}" / "model.safetensors").is_file():
            if name == TEACHER and args.backbone is None:
                raise SystemExit("to train a teacher, give --backbone")
            run(training(name, args), args)
    if args.train_only:
        return
    for name in names:
        row = evaluated(name, args)
        print(json.dumps({k: row[k] for k in ("metrics_all", "plain", "secure", "label_agreement")}))
        keep("tasks", args.task, {name: row})


def keep(what: str, task: str, rows: Mapping[str, Any]) -> None:
    """Puts a task's rows into bench/results/distill.json, and keeps the rows that are there."""
    path = RESULTS / "distill.json"
    before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    found: dict[str, Any] = {key: before.get(key, {}) for key in ("tasks", "swapped")}
    found[what].setdefault(task, {}).update(rows)
    record("distill", {"settings": SETTINGS, **found})


def swapped(args: argparse.Namespace) -> dict[str, Any]:
    """The metrics on the dev set of the teacher's weights, under the designs' functions."""
    from secformer.models.distill.device import use_threads
    from secformer.models.distill.finetune import dev_logits
    from secformer.models.distill.model import load
    from secformer.models.distill.scores import scores
    from secformer.models.distill.tasks import glue_file, read, task_named
    from secformer.models.families.folder import ModelFolder
    from secformer.models.ranges.trained import DESIGNS

    use_threads(args.threads)
    task, folder = task_named(args.task), ModelFolder(args.work / f"{args.task}-{TEACHER}")
    dev, model = read(glue_file(args.data, task, "dev"), task), load(folder)
    rows = folder.tokenizer.rows(dev.texts, truncation=True)
    return {name: scores(dev_logits(model, rows, recipe), dev.labels, task) for name, recipe in DESIGNS.items()}


def training(name: str, args: argparse.Namespace) -> list[str]:
    """The command that makes a model."""
    settings, out = SETTINGS[args.task], str(args.work / f"{args.task}-{name}")
    data = ["--task", args.task, "--data", str(args.data), "--out", out]
    data += [] if args.float32 else ["--bfloat16"]
    if args.threads:
        data += ["--threads", str(args.threads)]
    if name == TEACHER:
        return ["finetune", str(args.backbone or "BACKBONE"), *data, *settings["teacher"].split()]
    design, _, labels = name.partition("-")
    stages = [*settings["labels"].split(), "--labels-only"] if labels else settings["distilled"].split()
    return ["distill", str(args.work / f"{args.task}-{TEACHER}"), "--design", design, *data, *stages,
            *settings["students"].split()]


def evaluated(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """A row of the table: metrics on the whole dev set (float32, from the end of training), and on the first examples,
    in plaintext and securely."""
    folder = args.work / f"{args.task}-{name}"
    command = ["evaluate", str(folder), "--task", args.task, "--data", str(args.data), "--secure", "--limit",
               str(args.limit), "--embedding", "client", "--backend", "numpy", "--json"]
    found = json.loads(run(command, args))
    cost = found["cost"]
    return {
        "command": shlex.join(["secformer", *(part if part not in (str(args.data), str(folder)) else Path(part).name
                                              for part in command)]),
        "made_by": shlex.join(["secformer", *(Path(part).name if "/" in part else part
                                              for part in training(name, args))]),
        "recipe": found["recipe"], "examples": found["examples"],
        "metrics_all": json.loads((folder / "training" / "result.json").read_text("utf-8")),
        **{key: found[key] for key in ("plain", "secure", "label_agreement", "max_logit_error")},
        "online_seconds": cost["seconds"], "online_bytes": cost["bytes"], "rounds": cost["rounds"],
    }


def run(command: list[str], args: argparse.Namespace) -> str:
    print(shlex.join(["secformer", *command]), file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", "secformer", *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    main()
