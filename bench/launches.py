"""Device operations of one guarded inference on a GPU, by role, by name and by caller. Needs no GPU.

    python bench/launches.py                       # BERT_BASE at 128 and 512 tokens
    python bench/launches.py --tokens 16 --callers 40

An operation is a kernel launch, an array operation of CuPy (an addition, a copy, ...), or the copy of a message that
another role made. All three roles run in one process, as `SecureModel` runs them, on arrays without contents (see
`ghost_arrays`). A model of one layer and one of two layers run in full size; the difference is the price of a layer,
and the rest follows. Copies from the host are counted apart: a CUDA graph takes none.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bert import SHAPES, checkpoint
from ghost_arrays import HOST, CountedKernels, Row, Tally, ghosts
from gpu_bert import ids_of
from report import RESULTS, record

from secformer import SecureModel
from secformer.models.data.parameters import load_weights
from secformer.models.data.tensors import Layout
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.mpc.backend import CupyBackend
from secformer.mpc.kernels.cuda.device import Device
from secformer.mpc.kernels.cuda.launch import CudaKernels
from secformer.mpc.meter import Cost
from secformer.mpc.ring import word_type
from secformer.mpc.simulate import World
from secformer.protocols.recipes import recipe_named

GOAL = ("base", 512, 8000)  # shape, tokens, operations at most


class _Zeros:
    """Tensors without contents, of a layout's shapes."""

    def __init__(self, layout: Layout):
        self.layout = layout

    def get(self, name: str) -> np.ndarray:
        tensor = self.layout[name]
        return np.broadcast_to(word_type(tensor.width)(0), tensor.shape)


def counted(folder: Path, tokens: int, recipe: str) -> Counter[Row]:
    """What one inference asks of a device, by role, kind, name and caller."""
    texts, chosen, tally = ids_of(tokens), recipe_named(recipe), Tally()
    model = SecureModel(ModelFolder(folder), chosen, measure(ModelFolder(folder), texts, recipe=chosen),
                        _settings(), "numpy")
    kernels = CudaKernels(CupyBackend(ghosts(tally)), Device("none", 90, lambda file: CountedKernels(tally)))
    model.world, model.provisioning = World(kernels=kernels, fixed=model.settings.fixed, graph="off"), Cost()

    def load(s: Any, tensors: _Zeros) -> None:
        model._parameters[s] = load_weights(s, tensors)

    zeros = _Zeros(model.layout)
    model.world.run(load, zeros, zeros)
    tally.rows.clear()
    model(texts)
    return Counter(tally.rows)


def _settings() -> Any:
    from secformer.models.run.options import settings_of

    return settings_of({"untrained_recipe": True})


def whole(shape: str, tokens: int, recipe: str) -> Counter[Row]:
    """The counts of all layers of a shape, from those of one layer and of two."""
    layers, hidden, heads = SHAPES[shape]
    each = []
    for depth in (1, 2):
        with tempfile.TemporaryDirectory() as at:
            checkpoint(Path(at), depth, hidden, heads, 0)
            each.append(counted(Path(at), tokens, recipe))
    one, two = each
    found: Counter[Row] = Counter()
    for row in one | two:
        found[row] = one[row] + (layers - 1) * (two[row] - one[row])
    return found


def added(rows: Counter[Row], *columns: int) -> dict[str, int]:
    """Counts by some columns of a row, the largest first."""
    found: Counter[str] = Counter()
    for row, count in rows.items():
        found[", ".join(row[c] for c in columns)] += count
    return dict(found.most_common())


def summary(rows: Counter[Row]) -> dict[str, Any]:
    on_device = Counter({row: n for row, n in rows.items() if row[1] != HOST and n})
    from_host = Counter({row: n for row, n in rows.items() if row[1] == HOST and n})
    return {"operations": on_device.total(), "copies_from_host": from_host.total(), "by_role": added(on_device, 0),
            "by_kind": added(on_device, 1), "by_name": added(on_device, 1, 2), "by_caller": added(on_device, 3, 2),
            "from_host_by_caller": added(from_host, 3)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--tokens", type=int, nargs="+", default=(128, 512))
    parser.add_argument("--recipe", default="faithful")
    parser.add_argument("--callers", type=int, default=25, help="how many callers to print")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    found = []
    for tokens in args.tokens:
        rows = summary(whole(args.shape, tokens, args.recipe))
        print(f"{tokens} tokens: {rows['operations']} operations, {rows['by_role']}; {rows['by_kind']}; "
              f"{rows['copies_from_host']} copies from the host")
        for key in ("by_name", "by_caller"):
            print(*(f"{count:8d}  {name}" for name, count in list(rows[key].items())[: args.callers]), sep="\n")
        found.append({"shape": args.shape, "tokens": tokens, "recipe": args.recipe, **rows})
    shape, tokens, most = GOAL
    for row in found:
        if (row["shape"], row["tokens"]) == (shape, tokens):
            print(f"the goal of {most} operations is {'reached' if row['operations'] <= most else 'MISSED'}")
    record("launches", {"rows": found}, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
