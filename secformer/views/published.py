"""What `secformer page` has written, and what is left to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.page.files import Page


def page_json(made: Page, folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    return {"folder": str(folder), "files": sorted(files), "bytes": sum(map(len, files.values())),
            "parties": list(made.parties), "tokens": made.tokens, "headers": made.headers}


def page(made: Page, folder: Path, files: Mapping[str, bytes]) -> RenderableType:
    table = Table("header", "value", title="headers to serve it with", title_justify="left")
    for name, value in made.headers.items():
        table.add_row(name, value)
    steps = [
        f"Wrote {len(files)} files of together {sum(map(len, files.values())) / 1e6:.1f} MB to {folder}. They hold no "
        f"secret.",
        "1. Serve the folder from your own origin, over HTTPS, with the headers below.",
        f"2. Serve fresh tokens at {made.tokens}, to people whom you let ask. `secformer token --settings client.toml "
        f"--json` makes them.",
        f"3. Have the operators of {' and '.join(made.parties)} add the page's origin to the origins under [browsers] "
        f"in their settings.",
    ]
    return Group(*map(Text, steps), table)
