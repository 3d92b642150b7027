"""Where the model that ships with the package lies."""

from __future__ import annotations

from pathlib import Path

import secformer.models


def demo_model() -> Path:
    """Folder of the small film-review sentiment classifier inside the installed package. Its README is its model
    card."""
    return Path(secformer.models.__path__[0]) / "demo"
