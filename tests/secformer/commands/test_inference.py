"""demo, infer, check, profile, papers and compare on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from commands_lab import answer, complaint, help_of, run
from comparison_lab import TEXTS
from tree import but_the_notice

import secformer
from secformer import demo_model
from secformer.cli import main
from secformer.commands.inference import DEMO_TEXTS
from secformer.models.run.networks import LAN, WAN
from secformer.mpc.errors import RangeError
from secformer.protocols.recipes import EXACT, RECIPES

ON_SHARES = [r.name for r in RECIPES.values() if r is not EXACT]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("encoder"), "BertModel")


def test_demo_on_the_shipped_model() -> None:
    done = run("demo", "A wonderful film.", "-", stdin="A dull and lifeless mess.\n\n")
    assert (done.returncode, but_the_notice(done.stderr)) == (0, "")
    for word in ("positive", "negative", "plaintext", "rounds", "dealer MB", "softmax", "A wonderful film."):
        assert word in done.stdout


def test_demo_json(capsys: pytest.CaptureFixture[str]) -> None:
    data = answer(capsys, "demo", "A wonderful film.", "A dull and lifeless mess.")
    assert data["secure"]["labels"] == data["plaintext"]["labels"] == ["positive", "negative"]
    assert data["max_probability_difference"] < 5e-3
    assert data["secure"]["cost"]["rounds"] > 0 and data["secure"]["cost"]["bytes"] > 0


def test_infer_encoder(capsys: pytest.CaptureFixture[str], encoder: Path) -> None:
    data = answer(capsys, "infer", str(encoder), "the cat sat", "a dog ran", "--recipe", "faithful")
    (embedding, other) = data["embeddings"]
    assert len(embedding) == len(other) and data["texts"] == ["the cat sat", "a dog ran"]
    assert main(["infer", str(encoder), "the cat sat", "--embedding", "client", "--progress"]) == 0
    assert "embedding" in capsys.readouterr().out


def test_the_fast_format_takes_fewer_bytes(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And its own rounding: the numbers differ by a little. Other formats are refused, with what is offered."""
    slow, fast = (answer(capsys, "infer", str(encoder), "the cat sat", "--frac", frac) for frac in ("16", "12"))
    assert fast["cost"]["bytes"] < 0.95 * slow["cost"]["bytes"] and fast["cost"]["rounds"] == slow["cost"]["rounds"]
    error = np.abs(np.subtract(fast["embeddings"], slow["embeddings"])).max()
    assert 1e-5 < error < 2e-2
    said = complaint(capsys, "infer", str(encoder), "the cat sat", "--frac", "20")
    assert "frac must be 12 to 16: 16 is the accurate format, 12 the fast one" in said and "got 20" in said
    assert main(["check", str(encoder), "the cat sat", "--frac", "12"]) == 0


@pytest.mark.parametrize(("architecture", "field", "shown"), [
    ("BertForSequenceClassification", "labels", "label"), ("BertForTokenClassification", "labels", "entities, with"),
    ("BertForQuestionAnswering", "start_logits", "give pairs"), ("BertForMaskedLM", "logits", "has no [MASK]"),
])
def test_infer_heads(architecture: str, field: str, shown: str, capsys: pytest.CaptureFixture[str],
                     tmp_path: Path) -> None:
    folder = str(write_checkpoint(tmp_path, architecture))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the cat sat\ton the mat\r\n\na dog\tran\n", "utf-8")
    data = answer(capsys, "infer", folder, "--pairs", str(pairs))
    assert len(data[field]) == 2 and data["texts"] == [["the cat sat", "on the mat"], ["a dog", "ran"]]
    assert ("answers" in data) == (architecture != "BertForSequenceClassification")
    assert main(["infer", folder, "the cat sat"]) == 0
    assert shown in " ".join(capsys.readouterr().out.split())


def test_infer_says_what_the_model_answers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A word for each mask; a passage's answer; one number for one output."""
    masked = str(write_checkpoint(tmp_path / "masked", "BertForMaskedLM"))
    told = answer(capsys, "infer", masked, "the [MASK] sat on [MASK]", "the cat")["answers"]
    assert [len(mask["words"]) for mask in told[0]["masks"]] == [5, 5] and "no [MASK]" in told[1]["note"]
    assert main(["infer", masked, "the [MASK] sat on [MASK]"]) == 0
    out = capsys.readouterr().out
    for mask in told[0]["masks"]:
        assert mask["words"][0]["word"] in out
    question = str(write_checkpoint(tmp_path / "question", "BertForQuestionAnswering"))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("who sat ?\tThe CAT sat on the mat\n", "utf-8")
    (told,) = answer(capsys, "infer", question, "--pairs", str(pairs))["answers"]
    assert told["text"] == "The CAT sat on the mat"[told["start"] : told["end"]] != ""
    one = str(write_checkpoint(tmp_path / "one", "BertForSequenceClassification", labels=1))
    assert main(["infer", one, "the cat"]) == 0
    assert "score" in capsys.readouterr().out


def test_profile_then_check(capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder, tmp_path / "model")
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sat on the mat\na dog ran\nnot a very good film !\n", "utf-8")
    written = answer(capsys, "profile", str(folder), "--texts", str(texts))
    assert Path(written["path"]).parent == folder and Path(written["path"]).is_file() and written["texts"] == 3
    report = answer(capsys, "check", str(folder), "the cat sat on the mat")
    assert report["within"] and report["profile"] == written["path"] and report["errors"]["last_hidden_state"] < 1e-2
    assert main(["check", str(folder), "the cat sat on the mat"]) == 0
    assert "within" in capsys.readouterr().out


def test_profile_for_another_recipe(capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "profile.json"
    texts.write_text("the cat sat on the mat\n", "utf-8")
    arguments = ("profile", str(encoder), "--texts", str(texts), "--out", str(out))
    assert answer(capsys, *arguments, "--recipe", "secformer")["design"] == "secformer"
    assert "secformer" in complaint(capsys, "check", str(encoder), "the cat", "--profile", str(out))


def test_check_tells_what_is_outside(capsys: pytest.CaptureFixture[str], encoder: Path, tmp_path: Path) -> None:
    texts, narrow = tmp_path / "texts.txt", tmp_path / "narrow.json"
    texts.write_text("cat\n", "utf-8")
    assert main(["profile", str(encoder), "--texts", str(texts), "--out", str(narrow)]) == 0
    facts = json.loads(narrow.read_text("utf-8"))
    facts["sites"] = {site: {q: [low, low + (high - low) * 1e-3] for q, (low, high) in quantities.items()}
                      for site, quantities in facts["sites"].items()}
    narrow.write_text(json.dumps(facts), "utf-8")
    capsys.readouterr()
    assert main(["check", str(encoder), "the dog ran , the cat sat !", "--profile", str(narrow), "--json"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert not report["within"] and report["violations"] and "range profile" in err


# ---- texts that a model cannot hold ----------------------------------------------------------------------------------

LONG = "cat " * 100


def test_check_tells_a_text_that_is_too_long_and_checks_the_others(capsys: pytest.CaptureFixture[str],
                                                                   encoder: Path) -> None:
    assert main(["check", str(encoder), "the cat", LONG, "a dog ran", "--json"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["texts"] == ["the cat", "a dog ran"] and report["errors"] and not report["within"]
    assert [each["number"] for each in report["refused"]] == [1]
    assert report["refused"][0]["problem"].startswith("text 1 has 102 tokens; this model takes at most 32")
    assert "1 of 3 text(s) could not be run (number 1, counted from 0)" in err and err.count("\n") == 1
    assert main(["check", str(encoder), LONG]) == 1
    assert "text 0 has 102 tokens" in capsys.readouterr().out


def refusing(real: Any, word: str) -> Any:
    """A run that cannot hold texts with this word."""
    def run(model: Any, texts: Any, **options: Any) -> Any:
        if any(word in text for text in texts):
            raise RangeError("a product leaves 12 bits of magnitude")
        return real(model, texts, **options)

    return run


def test_demo_answers_the_others(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secformer, "plain_model", refusing(secformer.plain_model, "huge"))
    assert main(["demo", "Great.", "huge", "Dull.", "--json"]) == 1
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["texts"] == ["Great.", "Dull."] and len(facts["secure"]["labels"]) == 2
    assert facts["refused"] == [{
        "number": 1, "problem": "text 1: the model cannot hold its values: a product leaves 12 bits of magnitude"}]
    assert "1 of 3 text(s) could not be run" in err and "unexpected" not in err
    assert main(["demo", "huge"]) == 1
    assert "text 0: the model cannot hold" in capsys.readouterr().out


def test_check_of_values_that_do_not_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                         encoder: Path) -> None:
    """Raised, or told by the report of the twin."""
    from secformer.models.run import check

    real = check.check
    for broken in (refusing(real, "dog"), lambda model, texts, **options: replace(
            real(model, texts, **options), problem="a value does not fit" if "a dog" in texts else "")):
        monkeypatch.setattr(check, "check", broken)
        assert main(["check", str(encoder), "the cat", "a dog", "a film"]) == 1
        out, err = capsys.readouterr()
        assert "text 1: the model cannot hold its values: a" in out and "the other texts stay within it" in out
        assert "1 of 3 text(s)" in err


def test_demo_warms_up_outside_the_clock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What happens once, such as compiling, falls into a run of its own, whose cost is not shown."""
    real, calls, told = secformer.secure_model, [], []

    def counted(model: Any, texts: Any, *, progress: Any, **options: Any) -> Any:
        calls.append((list(texts), options))
        if callable(progress):
            progress("softmax", 1, 2)
        out = real(model, texts, **options)
        return replace(out, cost=replace(out.cost, seconds=1000.0)) if len(calls) == 1 else out

    @contextmanager
    def shown(progress: bool) -> Iterator[Any]:
        yield lambda *some: told.append(some)

    monkeypatch.setattr(secformer, "secure_model", counted)
    monkeypatch.setattr("secformer.models.run.progress.shown", shown)
    facts = answer(capsys, "demo", "Great.", "--backend", "numpy")
    assert [texts for texts, _ in calls] == [list(DEMO_TEXTS), ["Great."]] and calls[0][1] == calls[1][1]
    assert facts["secure"]["cost"]["seconds"] < 1000.0 and told == [("warming up", 1, 2)]


def test_papers(capsys: pytest.CaptureFixture[str]) -> None:
    data = answer(capsys, "papers")
    assert any("SecFormer" in paper["title"] for paper in data["papers"])
    assert main(["papers"]) == 0
    assert "SecFormer" in capsys.readouterr().out


# ---- compare ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_recipes_on_the_shipped_model(tmp_path: Path) -> None:
    """As users run it: every recipe has a row in the JSON and on the page."""
    html = tmp_path / "page.html"
    done = run("compare", str(demo_model()), TEXTS[0], "--runs", "1", "--json", "--html", str(html))
    assert (done.returncode, but_the_notice(done.stderr)) == (0, "")
    data = json.loads(done.stdout)
    assert [row["recipe"] for row in data["recipes"]] == ON_SHARES
    for row in data["recipes"]:
        assert row["ran"] or row["problem"], row
        if not row["needs_distilled_model"]:
            assert row["label_agreement"] == 1.0 and row["max_error"] < 0.2 and row["min_cosine"] > 0.99, row
    text = html.read_text("utf-8")
    assert all(f"<td>{name}" in text for name in ON_SHARES)


def test_help_of_compare_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "compare")
    assert "secformer compare ./my-bert" in text and "distilled" in text


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
