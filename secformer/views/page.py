"""The page of `secformer compare --html`: one HTML file with its pictures inside.

It loads nothing, runs no script, fits wide and narrow screens, and follows the reader's light or dark setting. The
pictures are SVG, drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from secformer.models.run.comparison import PARTS, Comparison, Row, parts
from secformer.models.run.networks import LAN, WAN, Network
from secformer.mpc.meter import Cost
from secformer.views.comparison import notes, notes_by_recipe
from secformer.views.texts import Texts, one_line

Bar = tuple[str, Sequence[float]]  # a name, and the lengths of the pieces laid end to end

WIDTH, LEFT, RIGHT = 400.0, 136.0, 58.0  # pixels: a picture, its names on the left, its figures on the right
LINE, BAR = 30.0, 16.0                   # pixels: a row of a picture, a bar within it
TINY = 1e-9  # a smaller error is drawn here, since the axis is logarithmic
STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #ffffff; --card: #f5f6f8; --rule: #d9dde3;
  --c0: #2f6fb3; --c1: #e08a1e; --c2: #3d9970; --c3: #b5477f; --c4: #7a6bc4; --c5: #8a929c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #a3adba; --paper: #14181e; --card: #1e242c;
  --rule: #37404c; --c0: #6aa5e3; --c1: #f2ab52; --c2: #62c49a; --c3: #e07fb0; --c4: #a99bf0; --c5: #9aa4b0;
  --bad: #ff9d94; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 68rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0; } .soft { color: var(--soft); } .bad { color: var(--bad); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; width: 100%; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap;
  vertical-align: top; font-variant-numeric: tabular-nums; } th { white-space: normal; vertical-align: bottom;
  overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; } td.why, td.text { text-align: left; white-space: normal; }
td.text { min-width: 12rem; }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; padding: .8rem; background: var(--card); border-radius: .5rem; }
figcaption { font-weight: 600; font-size: .95rem; } figcaption span { font-weight: 400; color: var(--soft); }
svg { display: block; width: 100%; height: auto; margin-top: .4rem; }
svg text { font: 14px system-ui, sans-serif; fill: var(--ink); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; margin-top: .3rem; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em; }
""".strip()


def page(compared: Comparison, texts: Texts) -> str:
    """The whole document."""
    ran = [row for row in compared.rows if row.cost is not None]
    body = [
        "<h1>Secure inference, recipe by recipe</h1>",
        f'<p class="soft">Model {_text(compared.model)}; {len(texts)} text(s). Two parties and a dealer computed on '
        f"shares of the input and of the weights. Answers are compared with those of the plaintext model.</p>",
        "<h2>Side by side</h2>", _table(compared),
        *(f'<p class="soft">{_text(note)}</p>' for note in notes(compared)),
    ]
    if ran:
        body += ["<h2>Pictures</h2>", f'<div class="pictures">{"".join(_pictures(ran))}</div>']
    body += ["<h2>Answers</h2>", _answers(compared, texts)]
    said = [f"<li>{_text(', '.join(names))}: {_text(note)}</li>" for note, names in notes_by_recipe(compared).items()]
    if said:
        body += ["<h2>Notes on single recipes</h2>", f"<ul>{''.join(said)}</ul>"]
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>secformer: recipes compared</title><style>{STYLE}</style></head>\n<body>\n"
            + "\n".join(body) + "\n</body></html>\n")


def _table(compared: Comparison) -> str:
    names = ["recipe", "same labels", "largest error", "lowest cosine", "seconds", "ahead, s", "MB",
             "rounds", f"{LAN.name}, s", f"{WAN.name}, s"]
    rows = []
    for row in compared.rows:
        if row.cost is None or row.error is None or row.cosine is None:
            cells = f'<td class="why bad" colspan="{len(names) - 1}">did not run: {_text(row.problem)}</td>'
        else:
            c = row.cost
            same = "-" if row.agreement is None else f"{row.agreement:.0%}"
            values = [same, f"{row.error:.1e}", f"{row.cosine:.4f}", f"{c.seconds:.2f}",
                      f"{c.offline_seconds:.2f}", f"{c.bytes / 1e6:.1f}", str(c.rounds), f"{LAN.online(c):.2f}",
                      f"{WAN.online(c):.1f}"]
            cells = "".join(f"<td>{_text(v)}</td>" for v in values)
        rows.append(f"<tr><td>{_text(row.recipe)}{' *' if row.student else ''}</td>{cells}</tr>")
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _answers(compared: Comparison, texts: Texts) -> str:
    """Each recipe's label for each text; a model without labels gets a sentence instead."""
    outs = [("plaintext", compared.plain), *((r.recipe, r.output) for r in compared.rows if r.output is not None)]
    if compared.plain.labels is None:
        return (f'<p class="soft">This model answers with numbers ({_text(compared.answer)}); '
                f"<code>--json</code> has them.</p>")
    head = "".join(f"<th>{_text(name)}</th>" for name in ("text", *(name for name, _ in outs)))
    rows = []
    for i, text in enumerate(texts):
        said = [out.labels[i] if out.labels is not None else "-" for _, out in outs]
        words = [each if isinstance(each, str) else " ".join(each) for each in said]
        cells = "".join(f"<td{'' if w == words[0] else ' class=bad'}>{_text(w)}</td>" for w in words)
        rows.append(f'<tr><td class="text">{_text(one_line(text))}</td>{cells}</tr>')
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


# ---- pictures --------------------------------------------------------------------------------------------------------


def _pictures(rows: Sequence[Row]) -> list[str]:
    costs = [(row.recipe, row.cost) for row in rows if row.cost is not None]
    split = [(name, parts(cost)) for name, cost in costs]

    def by_part(value: Callable[[Cost], float]) -> list[Bar]:
        return [(name, [value(kinds[part]) for part in PARTS]) for name, kinds in split]

    errors = [(row.recipe, row.error) for row in rows if row.error is not None]
    return [
        *(_network(costs, network) for network in (LAN, WAN)),
        _figure("Traffic by part", "MB, both directions", by_part(lambda c: c.bytes / 1e6), PARTS),
        _figure("Rounds by part", "exchanges that must wait for each other", by_part(lambda c: c.rounds), PARTS),
        _figure("Dealer's corrections by part", "MB, sent before the input arrives",
                by_part(lambda c: c.dealer_bytes / 1e6), PARTS),
        _points("Largest error of an answer", "against plaintext, logarithmic", errors),
    ]


def _network(costs: Sequence[tuple[str, Cost]], network: Network) -> str:
    bars = [(name, [c.seconds, network.moving(c), network.waiting(c)]) for name, c in costs]
    return _figure(f"Predicted time on a {network.name}", f"seconds at {network} per round", bars,
                   ("computing", "moving bytes", "waiting for rounds"))


def _figure(title: str, unit: str, bars: Sequence[Bar], pieces: Sequence[str]) -> str:
    """Bars laid out one below the other, each with its name and its total."""
    longest = max((sum(values) for _, values in bars), default=0.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / longest
    drawn = []
    for i, (name, values) in enumerate(bars):
        y, x = LINE * i, LEFT
        drawn.append(f'<text x="{LEFT - 8:g}" y="{y + LINE / 2 + 5:g}" text-anchor="end">{_text(name)}</text>')
        for j, value in enumerate(values):
            drawn.append(f'<rect x="{x:.1f}" y="{y + (LINE - BAR) / 2:g}" width="{max(value * scale, 0.0):.1f}" '
                         f'height="{BAR:g}" style="fill: var(--c{j % 6})"><title>{_text(name)}'
                         f", {_text(pieces[j])}: {_short(value)}</title></rect>")
            x += value * scale
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + LINE / 2 + 5:g}">{_short(sum(values))}</text>')
    legend = "".join(f'<span><i style="background: var(--c{j % 6})"></i>{_text(p)}</span>'
                     for j, p in enumerate(pieces))
    said = "; ".join(f"{name} {_short(sum(values))}" for name, values in bars)
    return _framed(title, unit, LINE * len(bars), drawn, said, f'<div class="legend">{legend}</div>')


def _points(title: str, unit: str, values: Sequence[tuple[str, float]]) -> str:
    """One point per name on a logarithmic axis, with a line at every power of ten."""
    exponents = [math.log10(max(value, TINY)) for _, value in values]
    low, high = math.floor(min(exponents)), max(math.ceil(max(exponents)), math.floor(min(exponents)) + 1)
    scale = (WIDTH - LEFT - RIGHT) / (high - low)
    floor = LINE * len(values)
    drawn = []
    for power in range(low, high + 1):
        x = LEFT + (power - low) * scale
        drawn.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{floor:g}" style="stroke: var(--rule)"/>'
                     f'<text x="{x:.1f}" y="{floor + 16:g}" text-anchor="middle">1e{power}</text>')
    for i, ((name, value), exponent) in enumerate(zip(values, exponents, strict=True)):
        y, x = LINE * (i + 0.5), LEFT + (exponent - low) * scale
        drawn.append(f'<text x="{LEFT - 8:g}" y="{y + 5:g}" text-anchor="end">{_text(name)}</text>'
                     f'<circle cx="{x:.1f}" cy="{y:g}" r="6" style="fill: var(--c0)"/>'
                     f'<text x="{x + 10:.1f}" y="{y + 5:g}">{_short(value)}</text>')
    said = "; ".join(f"{name} {_short(value)}" for name, value in values)
    return _framed(title, unit, floor + 22, drawn, said, "")


def _framed(title: str, unit: str, height: float, drawn: Sequence[str], said: str, legend: str) -> str:
    return (f"<figure><figcaption>{_text(title)} <span>{_text(unit)}</span></figcaption>"
            f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{_text(f"{title}, {unit}: {said}")}">'
            f'{"".join(drawn)}</svg>{legend}</figure>')


def _short(value: float) -> str:
    """Three significant digits."""
    if value == 0.0:
        return "0"
    if value < 1e-2:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"


def _text(value: str) -> str:
    return escape(str(value), quote=True)
