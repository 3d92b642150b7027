"""The bench of generation, on a tiny model and on a small random GPT-2."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_chat_lab import measured_chat


def run(generate: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
    generate.main()


def test_every_part_of_a_folder(bench: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2")
    text = tmp_path / "text.txt"
    text.write_text("hello world, hello " * 3, "utf-8")
    run(bench("generate"), monkeypatch, str(measured_chat(tmp_path / "chat")), "--text", str(text), "--prompts", "1",
        "--tokens", "3", "--prompt-tokens", "12", "--late", "30", "--out", str(tmp_path))
    (facts,) = json.loads((tmp_path / "generate.json").read_text("utf-8"))["models"].values()
    assert facts["logits"]["error_to_twin"] < 0.01 > facts["logits"]["error_to_transformers"]
    assert facts["agreement"]["same_as_plain"] + facts["agreement"]["ties_with_plain"] == 1
    assert facts["agreement"]["same_as_transformers"] + facts["agreement"]["ties_with_transformers"] == 1
    assert facts["perplexity"]["ratio"] == pytest.approx(1, abs=2e-3) and facts["perplexity"]["tokens"] > 9
    assert facts["cost"]["rounds"] == facts["cost"]["prompt_rounds"] > 0 < facts["cost"]["dealer_bytes"]
    assert list(facts["growth"]["rows"]) == ["18", "30"] and facts["growth"]["ratio"] > 0
    assert facts["drafted"]["same_rounds"] and facts["drafted"]["rows"]["8"]["bytes"] > facts["drafted"]["rows"]["1"][
        "bytes"]
    shown = bench("tables").generate({"mine": facts, "bare": {"logits": {"error_to_twin": 0.25}}})
    assert f"| mine | 12 | {facts['cost']['prompt_seconds']:.1f} |" in shown and "1 of 1 | 1 of 1" in shown
    assert "| bare | - |" in shown and "| bare | 2.5e-01 | - | - | - | - |" in shown


def test_a_shape_without_a_checkpoint(bench: Callable[[str], Any], tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    generate, made = bench("generate"), tmp_path / "made"
    own = generate.random_gpt2
    monkeypatch.setattr(generate, "random_gpt2", lambda folder: own(folder, n_layer=1, n_embd=8, n_head=2,
                                                                    vocab_size=50, n_positions=32))
    made.mkdir()
    (made / "generate.json").write_text('{"models": {"other": {"logits": 1}}}', "utf-8")
    run(generate, monkeypatch, "gpt2-shape", "--prompt-tokens", "5", "--late", "20", "--tokens", "2", "--parts",
        "cost,agreement", "--out", str(made))
    models = json.loads((made / "generate.json").read_text("utf-8"))["models"]
    assert models["other"] == {"logits": 1} and set(models["gpt2-shape"]) == {"logits", "cost"}
    monkeypatch.setattr(generate, "TOLERANCE", 0.0)
    with pytest.raises(SystemExit, match="nothing is timed"):
        run(generate, monkeypatch, "gpt2-shape", "--prompt-tokens", "5", "--out", str(tmp_path))
    assert not (tmp_path / "generate.json").exists()
