"""How the benches draw: one colour per recipe or cause, the same in every picture (matplotlib)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
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
LINES = {"mpcformer": (0, (5, 3)), "mpcformer_2relu": (0, (1, 2))}  # dashed lines; others are solid
CAUSE_COLOURS = "#1f5f9e", "#f0a202", "#b9c0c7"  # dark, middle, light: distinct without colours, too
TEXT, QUIET = "#1f2328", "#59636e"
PANELS = (0.1, 0.4), (0.58, 0.41)  # left end and width of two networks' bars, as fractions of the picture
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


def causes(title: str, panels: Mapping[str, Mapping[str, Mapping[str, float]]], parts: Sequence[str],
           published: Sequence[tuple[str, float, float, str]], notes: tuple[str, str]) -> Any:
    """Stacked bars: one panel per network, and one bar per system, cut into its parts. `published` times (system, low,
    high, setting) stand below, outlined and hatched, on the first panel's scale. `notes` say what the stacked bars and
    the outlined bars are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    systems = list(next(iter(panels.values())))
    bars, others, head, foot = 0.42 * len(systems), 0.42 * len(published), 1.2, 0.1
    gap = 0.7 if published else 0.0  # inches, as are all of these
    height = head + bars + gap + others + foot
    figure = pyplot.figure(figsize=(11.0, height))

    def say(inches: float, text: str, **look: Any) -> None:
        figure.text(0.012, 1.0 - inches / height, text, va="top", **({"color": QUIET, "fontsize": 11.5} | look))

    say(0.12, title, color=TEXT, fontsize=15, weight="bold")
    say(0.5, notes[0])
    handles = [Patch(color=colour, label=part) for colour, part in zip(CAUSE_COLOURS, parts, strict=True)]
    figure.legend(handles=handles, loc="upper right", ncols=len(parts), fontsize=12, frameon=False, handlelength=1.0,
                  columnspacing=1.2, bbox_to_anchor=(1.0, 1.0 - 0.04 / height))
    bottom = 1.0 - (head + bars) / height
    per_second = 0.0  # fraction of the figure's width per second, from the first panel
    for number, ((name, rows), (left, width)) in enumerate(zip(panels.items(), PANELS, strict=True)):
        axis = figure.add_axes((left, bottom, width, bars / height))
        longest = max(sum(row[part] for part in parts) for row in rows.values())
        for place, row in enumerate(rows.values()):
            start = 0.0
            for colour, part in zip(CAUSE_COLOURS, parts, strict=True):
                axis.barh(place, row[part], left=start, height=0.66, color=colour)
                start += row[part]
            axis.annotate(seconds(start), (start, place), xytext=(5, 0), textcoords="offset points", va="center",
                          fontsize=12, weight="bold", color=TEXT)
        axis.set(xlim=(0.0, longest * 1.17), ylim=(len(systems) - 0.5, -0.5))
        axis.set_title(name, fontsize=12, color=TEXT, loc="left", pad=5)
        axis.set_yticks(range(len(systems)), systems if number == 0 else [""] * len(systems), fontsize=12, color=TEXT)
        bare(axis)
        per_second = per_second or width / (longest * 1.17)
    if published:
        say(head + bars + 0.32, notes[1], style="italic")
        left, room = PANELS[0][0], 1.0 - PANELS[0][0]
        axis = figure.add_axes((left, foot / height, room, others / height))
        axis.set(xlim=(0.0, room / per_second), ylim=(len(published) - 0.5, -0.5))
        axis.set_yticks(range(len(published)), [system for system, *_ in published], fontsize=12, color=QUIET)
        for place, (_, low, high, setting) in enumerate(published):
            axis.barh(place, high, height=0.6, facecolor="white", edgecolor=QUIET, hatch="////", linewidth=1.2)
            inside = high > 0.5 * room / per_second  # no room for words behind the bar
            said = f"{high:.3g} s" if low == high else f"{low:.3g} to {high:.3g} s"
            axis.annotate(said if inside else f"{said}   {setting}", (high, place), xytext=(5, 0), va="center",
                          textcoords="offset points", fontsize=12, color=QUIET)
            if inside:
                axis.annotate(setting, (high / 2, place), va="center", ha="center", fontsize=12, color=QUIET,
                              bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.5})
        bare(axis)
    return figure


def seconds(value: float) -> str:
    """Seconds in words: with three digits where they are below a hundred."""
    return f"{value:.0f} s" if value >= 20 else f"{value:.1f} s" if value >= 3 else f"{value:.2f} s"


def bare(axis: Any) -> None:
    """An axis with labels for its bars and nothing else."""
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color("#d0d7de")


def save(figure: Any, name: str, folder: Path = FIGURES, *, dpi: int = DPI) -> Path:
    """Writes <folder>/<name>.png and closes the figure."""
    from matplotlib import pyplot
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi)
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
