"""Makes the demonstration model: SecFormer's design at 8 MB, for English film-review sentences (SST-2).

    python -m secformer.models.distill.train_demo --data glue --backbone all-MiniLM-L6-v2 --work work --out models/demo

The teacher is the backbone, fine-tuned on SST-2. Its vocabulary is then cut to the words that are frequent in SST-2.
The student starts from the first two of the teacher's layers, with fewer neurons, and is distilled in two stages.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from secformer.models.distill.device import use_threads
from secformer.models.distill.finetune import TEACHER, finetune
from secformer.models.distill.student import INNER, LOGITS, distill
from secformer.models.distill.tasks import glue_file, read, task_named
from secformer.models.distill.trim import trim
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE
from secformer.protocols.recipes import SECFORMER

WORDS, POSITIONS = 4900, 128
LAYERS, NEURONS = 2, 448
SHIPPED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", FILE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GLUE's folder")
    parser.add_argument("--backbone", type=Path, required=True, help="folder with all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, required=True, help="folder for the models that are made on the way")
    parser.add_argument("--out", type=Path, required=True, help="folder for the exported model")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    use_threads(args.threads)
    task = task_named("sst2")
    train, dev = (read(glue_file(args.data, task, split), task) for split in ("train", "dev"))
    texts = [text for text in train.texts if isinstance(text, str)]
    full, teacher, start, student = (args.work / name for name in ("sst2-teacher", "demo-teacher", "demo-start",
                                                                   "demo-student"))
    if not (full / "model.safetensors").is_file():
        finetune(ModelFolder(args.backbone), task, train, dev, full,
                 stage=replace(TEACHER, epochs=1, batch=64, checks=4, half=True))
    source = ModelFolder(full)
    cut = trim(source, teacher, texts, words=WORDS, positions=POSITIONS)
    smaller = trim(source, start, texts, layers=LAYERS, neurons=NEURONS, words=WORDS, positions=POSITIONS)
    found = distill(cut, SECFORMER, task, train, dev, student, smaller=smaller, half=True,
                    inner=replace(INNER, batch=64, epochs=1.5, rate=5e-4, checks=2, half=True),
                    logits=replace(LOGITS, batch=64, epochs=0.5, rate=2e-4, checks=4, half=True))
    args.out.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        shutil.copyfile(student / name, args.out / name)
    print(f"{args.out}: dev {found}")


if __name__ == "__main__":
    main()
