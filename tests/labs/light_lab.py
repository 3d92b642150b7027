"""Python as a client has it that installed `secformer[client]` alone: a process without the heavy packages."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("numba", "llvmlite", "torch", "transformers", "matplotlib", "starlette", "uvicorn", "scipy")
BEGIN = f"import sys\nsys.modules |= dict.fromkeys({HEAVY!r})\n"  # importing them raises ImportError
END = f"\nfound = [name for name in {HEAVY!r} if sys.modules[name] is not None]\nassert not found, found\n"


def light(code: str, *arguments: str) -> str:
    """What the code prints. It may not import, nor try to import and do without, any of HEAVY."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", BEGIN + code + END, *arguments], capture_output=True,
                          text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
