"""What training needs beyond the package, looked for before anything long begins."""

from __future__ import annotations

from importlib.util import find_spec

from secformer.mpc.errors import BackendUnavailable

MODULES = ("torch", "matplotlib")


def require_training() -> None:
    """Raises BackendUnavailable, naming the extra, where a module is missing."""
    missing = [name for name in MODULES if find_spec(name) is None]
    if missing:
        raise BackendUnavailable(f"training needs {' and '.join(missing)}, not installed here: "
                                 f"pip install \"secformer[distill]\" (evaluation needs neither)")
