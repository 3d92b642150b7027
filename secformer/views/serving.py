"""Results of the operators' commands: the files of `provision`, the material of `deal`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secformer.models.families.program import GUARD
from secformer.models.run.public import CLIENT_FOLDER, PublicModel
from secformer.models.run.share_file import share_file
from secformer.roles.stocking import Stocked

TABLES = ("The clients' folder holds the embedding tables, which are part of the weights: give it to clients only, and "
          "to no party.")


def provision_json(public: PublicModel, out: Path) -> dict[str, Any]:
    return {
        "model": public.digest, "recipe": public.recipe.name, "architecture": public.architecture.spec.architecture,
        "results": [name for name in public.names if name != GUARD], "guard": GUARD in public.names,
        "embedding": "private" if public.private else "client",
        "notes": list(public.notes),
        "files": {**{f"party{rank}": str(out / share_file(rank)) for rank in (0, 1)},
                  "client": str(out / CLIENT_FOLDER)},
    }


def provision(public: PublicModel, out: Path) -> RenderableType:
    table = Table("for", "what", "bytes")
    for rank in (0, 1):
        path = out / share_file(rank)
        table.add_row(f"party {rank}", str(path), f"{path.stat().st_size:,}")
    clients = out / CLIENT_FOLDER
    table.add_row("clients", str(clients), f"{sum(p.stat().st_size for p in clients.iterdir()):,}")
    lines = [f"model {public.digest[:16]}, recipe {public.recipe.name}, {public.architecture.spec.architecture}",
             "Copy each share file to its own party only, as model.safetensors beside that party's settings file, and "
             "the clients' folder to clients, as model. The two share files together are the weights: delete these "
             "copies when both parties have theirs.",
             *(() if public.private else (TABLES,)),
             *(f"Note: {note}." for note in public.notes)]
    return Group(table, *(Text(line) for line in lines))


def deal_json(stocked: Stocked) -> dict[str, Any]:
    return {"plan": stocked.plan, "lengths": list(stocked.lengths), "added": stocked.added, "left": stocked.left,
            "bytes_each": stocked.run_bytes, "problem": stocked.problem}


def deal(stocked: Stocked) -> RenderableType:
    lengths = ", ".join(map(str, stocked.lengths))
    return Text(f"Stored material for {stocked.added} request(s) of {lengths} tokens, "
                f"{stocked.run_bytes / 1e6:.1f} MB per request. The store now serves {stocked.left} such request(s).")
