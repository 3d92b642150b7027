"""The start of a light client: seconds of its import and of its first answer, and the size of what is installed.

    python bench/client_start.py [--starts 9] [--python VENV/bin/python] [--model FOLDER ...]

Serves models on this machine, the shipped one by default, and starts a new process for each measurement. `--python` is
that of an environment with `pip install "secformer[client]"` alone; without it, the bench makes such an environment of
this checkout. Models are classifiers or encoders; the answer must be the plaintext model's before a time counts.
Target: import and first answer in 2 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from report import record

from secformer import PlainModel, demo_model
from secformer.models.families.heads import Head
from secformer.roles.trial import LocalRoles

ROOT = Path(__file__).resolve().parents[1]
TEXT, TARGET, NEAR = "A wonderful film.", 2.0, 1e-2
HEAVY = ("transformers", "numba", "torch", "matplotlib")
START = """
import json, sys, time
begin = time.perf_counter()
from secformer import connect
imported = time.perf_counter()
with connect(sys.argv[1]) as model:
    found = getattr(model, sys.argv[2])(sys.argv[3])
    first, busy = time.perf_counter(), time.process_time()
    getattr(model, sys.argv[2])(sys.argv[3])
    second = time.perf_counter()
print(json.dumps({"answer": found.label if sys.argv[2] == "classify" else found.tolist(),
                  "import": imported - begin, "first answer": first - imported, "second answer": second - first,
                  "import and first answer": first - begin, "the client's own processor time": busy,
                  "modules": len(sys.modules), "loaded": list(sys.modules)}))
"""


def environment(folder: Path) -> Path:
    """The Python of a new environment with the light client."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[client]"], check=True)
    return python


def megabytes(python: Path) -> float:
    """Of all that the environment's Python has installed, without pip and setuptools, which a venv brings."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    done = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True)
    packages = Path(done.stdout.strip())
    own = ("pip", "setuptools", "_distutils_hack", "pkg_resources")
    files = (path for path in packages.rglob("*") if path.is_file() and not path.is_symlink())
    return round(sum(path.stat().st_size for path in files
                     if not path.relative_to(packages).parts[0].startswith(own)) / 1e6, 1)


def right(answer: Any, wanted: Any) -> bool:
    """A label is the same; a sentence embedding lies within NEAR of the plaintext one, of its size."""
    if isinstance(wanted, str):
        return bool(answer == wanted)
    return bool(np.abs(np.array(answer) - wanted).max() < NEAR * np.abs(wanted).max())


def measured(python: Path, settings: Path, model: Path, starts: int) -> dict[str, Any]:
    """Medians over processes. The first one, which compiles modules, does not count."""
    plain, found = PlainModel.from_pretrained(model), []
    task = "embed" if plain.architecture.head is Head.ENCODER else "classify"
    wanted = plain.embed(TEXT) if task == "embed" else plain.classify(TEXT).label
    for _ in range(starts + 1):
        done = subprocess.run([python, "-I", "-c", START, str(settings), task, TEXT], check=True, capture_output=True,
                              text=True)
        found.append(json.loads(done.stdout))
    for each in found:
        loaded = each.pop("loaded")
        if not right(each.pop("answer"), wanted) or any(name in loaded for name in HEAVY):
            raise SystemExit(f"the answer is wrong, or one of {', '.join(HEAVY)} was imported: times mean nothing")
    medians = {key: round(statistics.median(each[key] for each in found[1:]), 3) for key in found[0]}
    return {"model": model.name, "task": task} | medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--model", type=Path, nargs="+", default=[demo_model()])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        python = options.python or environment(Path(temporary) / "venv")
        found = []
        for i, model in enumerate(options.model):
            with LocalRoles(Path(temporary) / str(i), model) as roles:
                roles.wait_ready(600)
                found.append(measured(python, roles.settings("client"), model, options.starts))
        facts = {"installed MB": megabytes(python), "load": round(os.getloadavg()[0], 2), "starts": options.starts,
                 "target seconds": TARGET, "met": all(each["import and first answer"] <= TARGET for each in found),
                 "models": found}
    print(json.dumps(facts, indent=1))
    record("client_start", facts)


if __name__ == "__main__":
    main()
