"""How the benches draw: one colour a recipe, the same in every picture, on a canvas of its own (matplotlib)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from report import RESULTS

FIGURES = RESULTS / "figures"
COLOURS = {
    "faithful": "#2f6fb3", "secformer": "#e08a1e", "puma": "#3d9970", "crypten": "#b5477f", "mpcformer": "#7a6bc4",
    "mpcformer_2relu": "#8a929c",
}
MARKERS = {
    "faithful": "o", "secformer": "s", "puma": "^", "crypten": "D", "mpcformer": "v", "mpcformer_2relu": "P",
}
LINES = {"mpcformer": (0, (5, 3)), "mpcformer_2relu": (0, (1, 2))}  # which others may lie upon: the rest are solid
DPI = 80
COLOURS_KEPT = 96


def canvas(panels: int, *, width: float = 4.3, height: float = 3.9, title: str = "") -> tuple[Any, list[Any]]:
    """A figure and its panels side by side, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=(width * panels, height), layout="constrained", squeeze=False)
    figure.suptitle(title, fontsize=12)
    for panel in axes[0]:
        panel.grid(True, color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, list(axes[0])


def save(figure: Any, name: str, folder: Path = FIGURES) -> Path:
    """Writes <folder>/<name>.png and lets go of the figure."""
    from matplotlib import pyplot
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI)
    pyplot.close(figure)
    Image.open(drawn).convert("RGB").quantize(COLOURS_KEPT).save(path, optimize=True)  # a third of the size
    print(f"drawn: {path.name}, {path.stat().st_size / 1e3:.0f} kB")
    return path


def plain_ticks(axis: Any, places: list[float] | None = None) -> None:
    """Plain numbers on a logarithmic axis: at the given places, else at 1, 2 and 5 of every power of ten."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if places is None else FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value / 1024:g}K")


def colour(name: str) -> str:
    return COLOURS.get(name, "#444444")


def look(name: str) -> dict[str, Any]:
    """How a recipe's line is drawn."""
    return {"color": colour(name), "linewidth": 1.6, "linestyle": LINES.get(name, "solid")}


def marker(name: str) -> str:
    return MARKERS.get(name, "x")
