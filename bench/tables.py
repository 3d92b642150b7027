"""Turns recorded results into the Markdown tables of the documents.

    python bench/tables.py bench/results/comparison-base-128.json
    python bench/tables.py bench/results/figures.json
    python bench/tables.py --fill docs/comparison.md

The last command updates a document. Between the comments <!-- tables: NAME --> and <!-- end -->, it puts the tables of
bench/results/NAME.json. Some names stand for several results: `real` for all of bench/real.py, `measured` for the
README's table, `base-128` for what BERT_BASE costs at 128 tokens.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from report import RESULTS

from secformer.models.run.comparison import PARTS
from secformer.models.run.networks import LAN, WAN

Rows = Mapping[str, Mapping[str, Any]]


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    ruled = ["|".join(["", *(f" {h} " for h in heads), ""]), "|" + "---|" * len(heads)]
    return "\n".join([*ruled, *("| " + " | ".join(line) + " |" for line in lines)])


def whole(rows: Rows) -> str:
    heads = ["recipe", "seconds online", "offline", "online MB", "rounds", "dealer GB", "peak GB",
             f"{LAN.name} s", "with what is ahead", f"{WAN.name} s", "error to twin", "error to plaintext"]
    return table(heads, (
        [f"`{name}`", f"{r['online_seconds']:.2f}", f"{r['offline_seconds']:.2f}",
         f"{r['online_bytes_both_directions'] / 1e6:,.0f}", f"{r['rounds']:,}", f"{r['dealer_bytes'] / 1e9:.2f}",
         f"{r['peak_memory_bytes'] / 1e9:.1f}", f"{r['predicted'][LAN.name]['online']:.2f}",
         f"{sum(r['predicted'][LAN.name].values()):.2f}", f"{r['predicted'][WAN.name]['online']:.1f}",
         f"{r['error_to_twin']:.1e}", f"{r['error_to_plaintext']:.1e}"]
        for name, r in rows.items()
    ))


def by_part(rows: Rows) -> str:
    """Online seconds, MB and rounds of every part, as in the efficiency table of the SecFormer paper."""
    return table(["recipe", *PARTS], (
        [f"`{name}`", *(f"{c['seconds']:.2f} s, {c['bytes'] / 1e6:,.0f} MB, {c['rounds']}"
                        for c in (r["by_part"][part] for part in PARTS))]
        for name, r in rows.items()
    ))


def ratios(found: Mapping[str, Rows]) -> str:
    return table(["against", "recipe", "LAN time", "with what is ahead", "WAN time", "seconds here", "online bytes",
                  "rounds", "dealer bytes"], (
        [f"`{base}`", f"`{name}`", *(f"{v:.2f}" for v in values.values())]
        for base, rows in found.items() for name, values in rows.items()
    ))


def functions(found: Mapping[str, Any]) -> str:
    lines = []
    for facts in found.values():
        kind = ", relative" if facts["relative"] else ""
        for name, row in facts["contenders"].items():
            if "cost" not in row:
                lines.append([facts["title"], facts["domain"], f"`{name}`", row["problem"], *[""] * 6])
                continue
            error, (size, cost) = row["error"], list(row["cost"].items())[-1]
            lines.append([
                facts["title"] + kind, facts["domain"], f"`{name}`", f"{error['twin_max']:.1e}",
                f"{error['secure_max']:.1e}", f"{error['secure_mean']:.1e}", f"{int(size):,} {facts['unit']}",
                str(cost["rounds"]), f"{cost['bytes'] / 1e6:.2f}",
                f"{(cost['seconds'] + cost['offline_seconds']) * 1e3:.0f}",
            ])
    return table(["function", "domain", "recipe", "twin, largest", "on shares, largest", "mean", "cost at", "rounds",
                  "MB", "ms"], lines)


COLUMNS = {"teacher": "teacher, `faithful`", "secformer": "SecFormer", "mpcformer": "MPCFormer",
           "secformer-labels": "SecFormer, labels only", "mpcformer-labels": "MPCFormer, labels only"}


def students(tasks: Mapping[str, Rows]) -> str:
    """Each task's metrics in percent: on the whole dev set, and on its first examples, in plaintext and securely."""
    lines = []
    for task, rows in tasks.items():
        for name in COLUMNS:
            if name not in rows:
                continue
            row = rows[name]
            whole, plain, secure = ("/".join(f"{100 * v:.2f}" for v in row[key].values())
                                    for key in ("metrics_all", "plain", "secure"))
            agreed = "-" if row["label_agreement"] is None else f"{100 * row['label_agreement']:.1f}"
            lines.append([task, COLUMNS[name], whole, plain, secure, agreed, f"{row['max_logit_error']:.1e}",
                          f"{row['online_bytes'] / row['examples'] / 1e6:.1f}", f"{row['rounds']:,}"])
    return table(["task", "model", "plaintext, all of dev", "plaintext, first examples", "secure, first examples",
                  "same labels, %", "largest logit error", "online MB per example", "rounds of all"], lines)


def families(rows: Rows) -> str:
    """What each family costs, and its online bytes as a share of BERT's, where BERT is among them."""
    base, bert = rows.get("bert", {}).get("online_bytes"), rows.get("bert", {}).get("bytes_per_layer")
    if not all("seconds" in r for r in rows.values()):
        return table(["family", "rounds per layer", "MB per layer", "of BERT's"], (
            [f"`{name}`", str(r["rounds_per_layer"]), f"{r['bytes_per_layer'] / 1e6:.0f}",
             f"{r['bytes_per_layer'] / bert:.2f}" if bert else "-"] for name, r in rows.items()))
    return table(["family", "seconds, all roles", "online MB", "of BERT's", "rounds per layer", "MB per layer",
                  "dealer MB", "error to twin"], (
        [f"`{name}`", f"{r['seconds']:.1f}", f"{r['online_bytes'] / 1e6:,.0f}",
         f"{r['online_bytes'] / base:.2f}" if base else "-", str(r["rounds_per_layer"]),
         f"{r['bytes_per_layer'] / 1e6:.1f}", f"{r['dealer_bytes'] / 1e6:,.0f}", f"{r['error_to_twin']:.1e}"]
        for name, r in rows.items()
    ))


def generate(models: Rows) -> str:
    """What generation costs, and how close it is to plaintext, for each model of bench/generate.py."""
    costs, errors = [], []
    for name, parts in models.items():
        c, near = parts.get("cost"), parts["logits"]
        costs.append([name, *([str(c["prompt_tokens"]), f"{c['prompt_seconds']:.1f}", f"{c['seconds_per_token']:.2f}",
                               str(c["rounds"]), f"{c['online_bytes'] / 1e6:.1f}", f"{c['dealer_bytes'] / 1e6:.1f}",
                               f"{c['peak_memory_bytes'] / 1e9:.1f}"] if c else ["-"] * 7),
                      *(f"{parts[part]['ratio']:.2f}" if part in parts else "-" for part in ("growth", "drafted"))])
        agreed, likely = parts.get("agreement", {}), parts.get("perplexity")
        errors.append([name, f"{near['error_to_twin']:.1e}",
                       f"{near['error_to_transformers']:.1e}" if "error_to_transformers" in near else "-",
                       *(f"{agreed[f'same_as_{other}'] + agreed[f'ties_with_{other}']} of {agreed['prompts']}"
                         if f"same_as_{other}" in agreed else "-" for other in ("plain", "transformers")),
                       f"{likely['secure']:.3f} / {likely['plain']:.3f}" if likely else "-"])
    return "\n\n".join([
        table(["model", "tokens of the prompt", "seconds of the prompt", "seconds per token", "rounds", "online MB",
               "dealer MB", "peak memory, GB", "token 500 / token 10", "step of 8 / step of 1"], costs),
        table(["model", "largest error of a logit, to the twin", "to transformers",
               "prompts with the same tokens as plaintext", "as transformers", "perplexity, secure / plaintext"],
              errors)])


def real() -> str:
    """Every result of bench/real.py."""
    lines = []
    for path in sorted(RESULTS.glob("real-*.json")):
        r = json.loads(path.read_text("utf-8"))
        same = f"{r['same_terms']} of {r['sentences']}" if "same_terms" in r else "-"
        lines.append([path.stem.removeprefix("real-"), r["architecture"], f"{r['hidden_reach']:.1f}",
                      f"{r['hidden_error_relative']:.1e}",
                      f"{1.0 - r['cosine_min']:.0e}" if "cosine_min" in r else "-", same, str(r["marked"])])
    return table(["checkpoint", "class", "largest hidden value", "largest error, of that",
                  "1 - cosine of embeddings, at most", "same expansion terms", "marked"], lines)


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def measured() -> str:
    """The README's table."""
    both = [result(f"bert-base-128-{name}") for name in ("faithful", "secformer")]
    real, student = result("fidelity-faithful"), result("classify-secformer")
    untrained = "not trained for it"
    return table(["", "`faithful`", "`secformer`"], [
        ["BERT_BASE shape, 128 tokens: online traffic", *(megabytes(r["online_bytes_both_directions"]) for r in both)],
        ["BERT_BASE shape, 128 tokens: rounds per layer", *(str(r["rounds_per_layer"]) for r in both)],
        ["BERT_BASE shape, 128 tokens: seconds, online / all",
         *(f"{r['online_seconds']:.1f} / {r['seconds_all_roles']:.1f}" for r in both)],
        ["BERT_BASE shape, 128 tokens: dealer to party 1", *(f"{r['dealer_bytes'] / 1e9:.2f} GB" for r in both)],
        ["BERT_BASE shape, one H200: milliseconds, 128 / 512 tokens", on_gpu(), "-"],
        [f"all-MiniLM-L6-v2: largest error of a hidden state, {real['sentences']} sentences",
         f"{real['last_hidden_state_max_error']:.1e}", untrained],
        ["all-MiniLM-L6-v2: STS-B Pearson, secure / plaintext",
         f"{real['pearson_secure']:.5f} / {real['pearson_plain']:.5f}", untrained],
        ["shipped student, 2 layers: SST-2 dev accuracy, secure / plaintext", untrained,
         f"{100 * student['accuracy_secure']:.2f} % / {100 * student['accuracy_plain']:.2f} %"],
    ])


def on_gpu() -> str:
    """Milliseconds of one text that runs as a graph, at 128 and 512 tokens."""
    rows = {r["tokens"]: r for r in result("gpu")["devices"]["NVIDIA H200"]["bert"]["rows"]
            if (r["shape"], r["texts"], r["graph"]) == ("base", 1, "auto")}
    return " / ".join(f"{1e3 * rows[tokens]['seconds_end_to_end']:.3g}" for tokens in (128, 512))


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def base_128() -> str:
    """What one inference of BERT_BASE costs, and the parts of `faithful`."""
    both = [result(f"bert-base-128-{name}") for name in ("faithful", "secformer")]
    rows = [
        ["online traffic, both directions", *(megabytes(r["online_bytes_both_directions"]) for r in both)],
        ["rounds per layer", *(str(r["rounds_per_layer"]) for r in both)],
        ["online seconds", *(f"{r['online_seconds']:.1f}" for r in both)],
        ["seconds of all three roles together", *(f"{r['seconds_all_roles']:.1f}" for r in both)],
        ["the same, as a multiple of a float32 pass", *(f"{r['ratio_to_float32']:.0f}" for r in both)],
        ["dealer to party 1", *(f"{r['dealer_bytes'] / 1e9:.2f} GB" for r in both)],
        ["provisioning traffic, once per model", *(f"{r['provisioning_bytes'] / 1e9:.2f} GB" for r in both)],
        ["peak resident memory", *(f"{r['peak_memory_bytes'] / 1e9:.2f} GB" for r in both)],
    ]
    parts = [[name, f"{c['bytes'] / 1e6:,.0f}", str(c["rounds"]), f"{c['seconds']:.2f} / {c['offline_seconds']:.2f}",
              f"{c['dealer_bytes'] / 1e6:,.0f}"] for name, c in both[0]["by_part"].items()]
    return (table(["", "`faithful`", "`secformer`"], rows) + "\n\nThe parts of `faithful`:\n\n"
            + table(["part", "online MB", "rounds", "seconds online / offline", "dealer MB"], parts))


def revisions(facts: Mapping[str, Any]) -> str:
    """Both revisions' figures, and now over before."""
    what = (("rounds per layer", "rounds_per_layer", 1.0, "{:.0f}"),
            ("online MB", "online_bytes_both_directions", 1e6, "{:,.0f}"), ("dealer GB", "dealer_bytes", 1e9, "{:.2f}"),
            ("seconds, all roles", "seconds_all_roles", 1.0, "{:.1f}"),
            ("processor seconds", "processor_seconds_all_roles", 1.0, "{:.1f}"))
    lines = []
    for name, row in facts["rows"].items():
        recipe, tokens = name.rsplit("-", 1)
        lines += [[f"`{recipe}`, {tokens} tokens: {label}",
                   *(form.format(row[side][key] / unit) for side in ("before", "now")),
                   f"{row['now_over_before'][key]:.2f}"] for label, key, unit, form in what]
    return table(["BERT_" + facts["shape"].upper(), "before", "now", "now / before"], lines)


NAMED = {"real": real, "measured": measured, "base-128": base_128}


def doors(attacks: Mapping[str, Rows]) -> str:
    """What a known client notices of floods, for each port and kind of bench/doors.py."""
    return table(["port", "attack", "sockets opened", "seconds, before", "during", "slower", "longest", "failures",
                  "log, kB", "recovered, s"], (
        [port, kind, f"{r['sockets_opened']:,}", f"{r['before_seconds']:.2f}", f"{r['during_seconds']:.2f}",
         f"{r['ratio']:.2f}", f"{r['longest_seconds']:.1f}", str(r["failures"]), f"{r['log_bytes'] / 1e3:.0f}",
         f"{r['recovered_seconds']:.1f}"] for port, rows in attacks.items() for kind, r in rows.items()))


def authenticated(facts: Mapping[str, Any]) -> str:
    """What MACs would cost, kind by kind, and what the prototype's product takes."""
    lines = [[f"`{name}`" if name != "all" else name,
              *(f"{row[key] / 1e6:,.0f}" for key in ("online", "online_macs", "dealer", "dealer_macs")),
              f"{row['online_macs'] / row['online']:.1f} / {row['dealer_macs'] / row['dealer']:.1f}"]
             for name, row in (*facts["kinds"].items(), ("all", facts["total"]))]
    timed = [[f"{int(size):,}", *(f"{row[key]:,.1f}" for key in ("bare", "engine", "product", "check", "dealer")),
              f"{row['over_bare']:.1f} / {row['over_engine']:.1f}"] for size, row in facts["milliseconds"].items()]
    return "\n\n".join([
        table(["correlation", "online MB", "with MACs", "dealer MB", "with MACs", "online / dealer, times"], lines),
        table(["elements", "bare product, NumPy, ms", "engine's product", "with MACs, NumPy", "its check",
               "its dealer", "product with MACs, times bare / engine"], timed)])


def tables(path: Path) -> str:
    if path.stem in NAMED:
        return NAMED[path.stem]()
    facts = json.loads(path.read_text("utf-8"))
    if facts["bench"].startswith("revisions"):
        return revisions(facts)
    if facts["bench"] == "generate":
        return generate(facts["models"])
    if facts["bench"].startswith("families"):
        return families(facts["rows"])
    if facts["bench"] == "authenticated":
        return authenticated(facts)
    if facts["bench"] == "doors":
        return doors(facts["attacks"])
    if "tasks" in facts:
        return students(facts["tasks"])
    if "rows" in facts:
        return "\n\n".join([whole(facts["rows"]), by_part(facts["rows"]), ratios(facts["ratios"])])
    return functions(facts["functions"])


def filled(text: str) -> str:
    """The document with the tables of <!-- tables: NAME --> ... <!-- end --> from bench/results/NAME.json."""
    return re.sub(r"(<!-- tables: (\S+) -->\n).*?(<!-- end -->)",
                  lambda found: f"{found[1]}{tables(RESULTS / f'{found[2]}.json')}\n{found[3]}", text, flags=re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, nargs="*")
    parser.add_argument("--fill", type=Path, metavar="DOCUMENT")
    args = parser.parse_args(argv)
    if args.fill is not None:
        args.fill.write_text(filled(args.fill.read_text("utf-8")), "utf-8")
    for path in args.result:
        print(tables(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
