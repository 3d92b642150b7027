"""What `secformer page` has written, and what is left to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.page.files import FACTS, headers


def page_json(folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    facts = json.loads(files[FACTS])
    return {"folder": str(folder), "files": sorted(files), "bytes": sum(map(len, files.values())), **facts,
            "headers": headers(facts["parties"], facts["tokens"])}


def page(folder: Path, files: Mapping[str, bytes]) -> RenderableType:
    facts = json.loads(files[FACTS])
    table = Table("header", "value", title="headers to serve it with", title_justify="left")
    for name, value in headers(facts["parties"], facts["tokens"]).items():
        table.add_row(name, value)
    steps = [
        f"Wrote {len(files)} files of together {sum(map(len, files.values())) / 1e6:.1f} MB to {folder}. They hold no "
        f"secret.",
        "1. Serve the folder from your own origin, over HTTPS, with the headers below.",
        f"2. Serve fresh tokens at {facts['tokens']}, to people whom you let ask. `secformer token --settings "
        f"client.toml --json` makes them.",
        f"3. Have the operators of {' and '.join(facts['parties'])} add the page's origin to the origins under "
        f"[browsers] in their settings.",
    ]
    return Group(*map(Text, steps), table)
