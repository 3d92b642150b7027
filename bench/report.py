"""What all benches share: the machine's description, and results as JSON in bench/results."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "numba", "cryptography", "transformers", "cupy")


def machine() -> dict[str, Any]:
    """The processor, its cores, and the versions of the software."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
        "commit": _commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parent)
    return done.stdout.strip() or None


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def record(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes <folder>/<name>.json and prints its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {"bench": name, "when": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), **result}
    path.write_text(json.dumps(content, indent=1) + "\n")
    root = Path(__file__).parents[1]
    print(f"recorded in {path.relative_to(root) if path.is_relative_to(root) else path}")
    return path
