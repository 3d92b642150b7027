"""The packages that training needs, looked for before anything long begins."""

from __future__ import annotations

from importlib.util import find_spec

from secformer.mpc.errors import BackendUnavailable

MODULES = ("torch", "matplotlib")


def require_training() -> None:
    """Raises BackendUnavailable, which says what to install, if a package is missing."""
    missing = [name for name in MODULES if find_spec(name) is None]
    if missing:
        raise BackendUnavailable(f"training needs the extra `distill`; not installed: {', '.join(missing)}. Install "
                                 f'it: pip install "secformer[distill]" (evaluation works without it)')
