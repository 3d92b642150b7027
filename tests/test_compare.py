"""Recipes side by side: the command as a process, its JSON and its page, and rows of recipes that cannot run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from tree import but_the_notice

from secformer import demo_model, plain_bert
from secformer.cli import main
from secformer.models.run.comparison import PARTS, Comparison, Row, compare, parts, verdicts
from secformer.models.run.networks import LAN, WAN, Network
from secformer.mpc.errors import InputError, ModelError, RangeError, SettingsError
from secformer.mpc.meter import Cost
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import EXACT, FAITHFUL, RECIPES, SECFORMER
from secformer.views.comparison import comparison_json
from secformer.views.page import page

TEXTS = ["A wonderful film.", "I want <b>my</b> two hours & this script's author back."]
ON_SHARES = [r.name for r in RECIPES.values() if r is not EXACT]
VOID = {"meta", "br", "link", "img", "line", "rect", "circle"}


class Reader(HTMLParser):
    """Collects what a page would load, and checks that its elements close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(v) for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "xlink:href")]
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def refusing(s: Session, x: Share, at: Site) -> Share:
    raise RangeError("this GeLU takes nothing below 0, got -3; use another")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("encoder"), "BertModel")


@pytest.fixture(scope="module")
def compared() -> Comparison:
    broken = replace(FAITHFUL, name="brok<en", gelu=refusing)
    return compare(demo_model(), TEXTS, [FAITHFUL, SECFORMER, broken], runs=1)


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_recipes_on_the_shipped_model(tmp_path: Path) -> None:
    """As users run it: every recipe has a row in the JSON and on the page."""
    html = tmp_path / "page.html"
    done = subprocess.run([sys.executable, "-m", "secformer", "compare", str(demo_model()), *TEXTS, "--json", "--html",
                           str(html)], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, but_the_notice(done.stderr)) == (0, "")
    data = json.loads(done.stdout)
    assert [row["recipe"] for row in data["recipes"]] == ON_SHARES
    for row in data["recipes"]:
        assert row["ran"] or row["problem"], row
        if not row["needs_distilled_model"]:
            assert row["label_agreement"] == 1.0 and row["max_error"] < 0.2 and row["min_cosine"] > 0.99, row
    text = html.read_text("utf-8")
    assert all(f"<td>{name}" in text for name in ON_SHARES)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["compare", "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0 and "secformer compare ./my-bert" in text and "distilled" in text
    assert max(map(len, text.splitlines())) <= 120


def test_table_of_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(demo_model()), TEXTS[0], "--recipes", "faithful, secformer", "--runs", "1"]) == 0
    out = capsys.readouterr().out
    for word in ("faithful *", "secformer", "100%", "LAN s", "WAN s", "distilled", str(LAN), str(WAN)):
        assert word in out


def test_encoder_as_json(capsys: pytest.CaptureFixture[str], encoder: Path) -> None:
    """An encoder has no labels to agree on."""
    assert main(["compare", str(encoder), "the cat sat", "--recipes", "faithful", "--runs", "1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    (row,) = data["recipes"]
    assert data["answer"] == "last_hidden_state" and row["label_agreement"] is None
    assert row["max_error"] < 0.01 and row["min_cosine"] > 0.9999 and len(row["answers"]["embeddings"]) == 1


@pytest.mark.parametrize(("arguments", "says"), [
    (["--recipes", "faithful,fathful"], "fathful"), (["--recipes", ", "], "no recipe"), (["--runs", "0"], "runs"),
    (["--html", "nowhere/at/all/page.html"], "nowhere"),
])
def test_misuse_is_told_before_anything_runs(arguments: list[str], says: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(demo_model()), TEXTS[0], *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and says in err and err.count("\n") == 1


# ---- what is compared ------------------------------------------------------------------------------------------------


def test_rows(compared: Comparison) -> None:
    """The shipped model was distilled for SecFormer's functions: of the others only the cost counts."""
    faithful, secformer, broken = compared.rows
    assert secformer.agreement == 1.0 and secformer.error is not None and secformer.error < 1e-2
    assert secformer.cosine is not None and secformer.cosine > 0.9999 and not secformer.student
    assert faithful.student and secformer.cost is not None and faithful.cost is not None
    assert faithful.error is not None and faithful.error > 2 * secformer.error
    assert faithful.cost.offline_bytes == 0 and faithful.provisioning is not None
    assert faithful.provisioning.offline_bytes > 0
    assert broken.cost is None and "RangeError" in broken.problem and "nothing below 0" in broken.problem


def test_json_schema(compared: Comparison) -> None:
    data = json.loads(json.dumps(comparison_json(TEXTS, compared), allow_nan=False))
    assert set(data) == {"texts", "model", "trained_for", "answer", "networks", "plaintext", "recipes", "notes"}
    assert set(data["networks"]) == {"LAN", "WAN"} and data["plaintext"]["labels"] == ["positive", "negative"]
    base = {"recipe", "ran", "problem", "needs_distilled_model"}
    more = {"label_agreement", "max_error", "min_cosine", "seconds", "offline_seconds", "bytes", "rounds",
            "dealer_bytes", "predicted_seconds", "parts", "provisioning_bytes", "answers", "notes"}
    faithful, _, broken = data["recipes"]
    assert set(faithful) == base | more and set(broken) == base
    assert set(faithful["parts"]) == set(PARTS)
    for key in ("bytes", "rounds", "dealer_bytes"):
        assert sum(part[key] for part in faithful["parts"].values()) == faithful[key]
    assert faithful["predicted_seconds"]["WAN"]["online"] > faithful["predicted_seconds"]["LAN"]["online"] > 0


def test_texts_outside_the_profile_are_told(tmp_path: Path) -> None:
    from secformer.models.families.folder import ModelFolder
    from secformer.models.ranges.profile import FILE, measure

    folder = write_checkpoint(tmp_path / "narrow", "BertModel")
    measure(ModelFolder(folder), ["cat"], recipe=FAITHFUL, margin=1.0).save(folder / FILE)
    (row,) = compare(folder, ["the dog ran , the cat sat !"], [FAITHFUL], runs=1).rows
    assert row.problem or any("outside the range profile" in note for note in row.notes)


def test_errors_of_all_recipes_are_raised(tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(ModelError):
        compare(tmp_path / "gone", TEXTS)
    with pytest.raises(InputError):
        compare(encoder, ["cat " * 100])
    with pytest.raises(SettingsError, match="embedding"):
        compare(encoder, ["cat"], embeding="client")


def test_the_reference_is_no_recipe_on_shares(encoder: Path) -> None:
    (row,) = compare(encoder, ["the cat"], [EXACT], runs=1).rows
    assert "exact" in row.problem and row.cost is None


@pytest.mark.parametrize("recipe", [r for r in RECIPES.values() if r is not EXACT], ids=lambda r: r.name)
def test_who_needs_a_distilled_model(recipe: Any) -> None:
    assert recipe.ordinary == (recipe.name in ("faithful", "puma", "crypten"))


@pytest.mark.parametrize(("architecture", "count"), [
    ("BertForSequenceClassification", 2), ("BertForTokenClassification", 7), ("BertForQuestionAnswering", 4),
    ("BertForMaskedLM", 7), ("BertModel", 0),
])
def test_verdicts(architecture: str, count: int, tmp_path: Path) -> None:
    """One a text, one a real token, or the two ends of an answer."""
    out = plain_bert(write_checkpoint(tmp_path, architecture), ["cat", "the cat"])
    assert len(verdicts(out)) == count


def test_parts_add_up() -> None:
    cost = Cost("total", seconds=3.0, bytes=100, rounds=10, children={
        "embedding": Cost("embedding", seconds=1.0, bytes=40, rounds=3, children={
            "layernorm": Cost("layernorm", seconds=0.5, bytes=30, rounds=2)}),
        "layer.0": Cost("layer.0", seconds=1.5, bytes=50, rounds=6, children={
            "gelu": Cost("gelu", seconds=1.5, bytes=50, rounds=6)}),
        "reveal": Cost("reveal", bytes=10, rounds=1)})
    found = parts(cost)
    assert tuple(found) == PARTS
    assert {name: c.bytes for name, c in found.items()} == {
        "embedding": 10, "gelu": 50, "softmax": 0, "layernorm": 30, "linear": 0, "other": 10}
    assert found["other"].rounds == 1 and found["other"].seconds == pytest.approx(0.5)


def test_networks() -> None:
    cost = Cost("run", seconds=1.0, offline_seconds=0.25, bytes=2_000_000, rounds=10, dealer_bytes=1_000_000)
    network = Network("test", 0.01, 1e6)
    assert network.online(cost) == pytest.approx(1.0 + 0.1 + 8.0)
    assert network.waiting(cost) + network.moving(cost) == pytest.approx(8.1)
    assert network.ahead(cost) == pytest.approx(8.25)
    assert (str(LAN), str(WAN)) == ("1 Gbit/s, 0.5 ms", "100 Mbit/s, 40 ms")


# ---- the page --------------------------------------------------------------------------------------------------------


def test_page_is_self_contained(compared: Comparison) -> None:
    text = page(compared, TEXTS)
    reader = read(text)
    assert not reader.addresses and not {"script", "link", "img", "iframe"} & reader.tags
    assert not re.search(r"https?:|//|url\(|@import", text)
    assert {"svg", "table"} <= reader.tags and text.count("<svg") == 6
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert "<b>my</b>" not in text and "&lt;b&gt;my&lt;/b&gt;" in text and "brok&lt;en" in text
    for word in ("faithful *", "secformer", "did not run", "nothing below 0", "positive", "negative"):
        assert word in text


def test_page_where_nothing_ran(compared: Comparison) -> None:
    text = page(replace(compared, rows=compared.rows[2:]), TEXTS)
    assert "did not run" in text and "<svg" not in read(text).tags and "Answers" in text


def test_page_of_an_exact_answer(compared: Comparison) -> None:
    """An error of 0 has a place on the logarithmic axis."""
    rows: tuple[Row, ...] = (replace(compared.rows[0], error=0.0), replace(compared.rows[1], error=np.pi))
    read(page(replace(compared, rows=rows), TEXTS))


# ---- the benches that draw the comparison ----------------------------------------------------------------------------


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a bench script, whose folder is no package."""
    import importlib

    monkeypatch.syspath_prepend(str(root / "bench"))
    return importlib.import_module


@pytest.mark.slow
def test_bench_of_bert_and_of_networks(bench: Callable[[str], Any], tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    bert, network = bench("bert"), bench("network")
    arguments = ["--shape", "tiny", "--tokens", "8", "--recipe", "faithful,secformer", "--repeat", "1"]
    assert bert.main([*arguments, "--out", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "comparison-tiny-8.json").read_text("utf-8"))
    row = facts["rows"]["faithful"]
    assert set(row["by_part"]) == set(PARTS) and row["error_to_twin"] < bert.TOLERANCE
    assert row["peak_memory_bytes"] > 0 and facts["ratios"]["secformer"]["faithful"]["rounds"] > 1
    tables = bench("tables")
    capsys.readouterr()
    assert tables.main([str(tmp_path / "comparison-tiny-8.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("`faithful`" in line for line in lines) == 3 and all(line.startswith("|") for line in lines if line)
    assert facts["machine"]["packages"]["numpy"] and (tmp_path / "bert-tiny-8-secformer.json").is_file()
    pytest.importorskip("matplotlib")
    assert network.main([str(tmp_path / "comparison-tiny-8.json"), "--out", str(tmp_path)]) == 0
    assert 0 < (tmp_path / "network-tiny-8.png").stat().st_size < 100_000


def test_ratios_of_a_bench(bench: Callable[[str], Any]) -> None:
    bert = bench("bert")

    def row(scale: int) -> dict[str, Any]:
        predicted = {n: {"online": 1.0 * scale, "ahead": 2.0 * scale} for n in ("LAN", "WAN")}
        return {"predicted": predicted, "online_seconds": scale, "offline_seconds": scale, "rounds": scale,
                "online_bytes_both_directions": scale, "dealer_bytes": scale}

    found = bert.ratios({"puma": row(6), "secformer": row(2), "faithful": row(1)})
    assert set(found) == {"puma", "secformer"}
    assert set(found["puma"]["secformer"].values()) == {3.0} and set(found["secformer"]["faithful"].values()) == {2.0}


@pytest.mark.slow
def test_bench_of_figures(bench: Callable[[str], Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = bench("figures")
    only = "gelu,division"
    assert figures.main(["--only", only, "--largest", "300", "--repeat", "1", "--out", str(tmp_path)]) == 0
    assert bench("tables").main([str(tmp_path / "figures-gelu-division.json")]) == 0
    facts = json.loads((tmp_path / "figures-gelu-division.json").read_text("utf-8"))["functions"]
    assert facts["gelu"]["contenders"]["faithful"]["error"]["secure_max"] < 2e-4
    assert all(0 < (tmp_path / f"{name}.png").stat().st_size < 100_000 for name in only.split(","))
