"""The place of the model that ships with the package."""

from __future__ import annotations

from pathlib import Path

import secformer.models


def demo_model() -> Path:
    """Folder of the small film-review sentiment classifier inside the installed package. Its README is the model
    card."""
    return Path(secformer.models.__path__[0]) / "demo"
