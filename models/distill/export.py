"""What training writes: an ordinary Hugging Face folder and a range profile.

The folder's config has an entry that says which functions the model was trained for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from secformer.models.data.batch import Row
from secformer.models.data.tokenizer_files import TOKENIZER_FILES
from secformer.models.distill.model import TorchModel, arrays
from secformer.models.families.config import KEY
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, builtin_rows, measure_rows
from secformer.models.ranges.trained import entry
from secformer.mpc.errors import ModelError
from secformer.protocols.recipes import Recipe

PROFILED, LONG = 300, 50  # training texts that ranges are measured on: of all lengths, and the longest


def write(out: Path, source: ModelFolder, model: TorchModel, recipe: Recipe | None, *,
          half: bool = False) -> ModelFolder:
    """Writes config, tokenizer and weights, and opens the folder again.

    recipe  the functions that the model was trained for; None: the exact ones
    half    store the weights in float16, else in float32
    """
    from safetensors.numpy import save_file

    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((source.path / "config.json").read_text("utf-8"))
    config.pop(KEY, None)
    spec = model.architecture.spec
    config |= {"architectures": [spec.architecture], "id2label": {str(i): n for i, n in enumerate(spec.labels)},
               "label2id": {n: i for i, n in enumerate(spec.labels)}, "dtype": "float16" if half else "float32",
               "problem_type": "regression" if len(spec.labels) == 1 else "single_label_classification"}
    config.pop("torch_dtype", None)
    if recipe is not None:
        config[KEY] = entry(recipe)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    for name in TOKENIZER_FILES:
        if (source.path / name).is_file() and source.path.resolve() != out.resolve():
            shutil.copyfile(source.path / name, out / name)
    kind = np.float16 if half else np.float32
    tensors = {model.architecture.stored_name(n): a.astype(kind) for n, a in arrays(model.tensors).items()}
    part = out / "model.safetensors.part"
    save_file(tensors, str(part), metadata={"format": "pt"})
    part.chmod(0o644)
    part.replace(out / "model.safetensors")
    return ModelFolder(out)


def write_profile(folder: ModelFolder, train: Sequence[Row]) -> None:
    """Measures ranges on built-in texts and on training texts, and writes the profile beside the checkpoint."""
    by_length = sorted(train, key=len)
    some = [*by_length[:-LONG : max(1, len(train) // PROFILED)], *by_length[-LONG:]]
    measure_rows(folder, [*builtin_rows(folder), *some]).save(folder.path / FILE)


def check_room(out: Path, source: Path) -> None:
    """Raises ModelError where the result would overwrite its source, or another model."""
    if out.resolve() == source.resolve():
        raise ModelError(f"{out} is the folder of the model to start from; give another folder for the result")
    if (out / "model.safetensors").exists():
        raise ModelError(f"{out} already holds a model; give another folder, or remove it")


def rounded(model: TorchModel) -> TorchModel:
    """The model as float16 would store it."""
    tensors: dict[str, Tensor] = {n: t.detach().half().float() for n, t in model.tensors.items()}
    return TorchModel(model.architecture, tensors)

