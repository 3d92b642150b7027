"""The script that makes the shipped model: its steps in order, with the long ones replaced."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint

from secformer.models.families.folder import ModelFolder
from secformer.protocols.recipes import SECFORMER

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill import train_demo
from secformer.models.distill.train_demo import LAYERS, NEURONS, POSITIONS, SHIPPED, WORDS, main


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the long steps are asked for; each leaves the files that the next one looks for."""
    done: list[tuple[Any, ...]] = []

    def finetune(source: ModelFolder, task: Any, train: Any, dev: Any, out: Path, **settings: Any) -> None:
        done.append(("finetune", source.path.name, task.name, len(train), len(dev), out.name))
        write_checkpoint(out, "BertForSequenceClassification", prefix="bert.", labels=2)

    def trim(source: ModelFolder, out: Path, texts: list[str], **sizes: int) -> ModelFolder:
        done.append(("trim", source.path.name, out.name, texts, sizes))
        return ModelFolder(write_checkpoint(out, "BertForSequenceClassification", prefix="bert.", labels=2))

    def distill(source: ModelFolder, recipe: Any, task: Any, train: Any, dev: Any, out: Path, *, smaller: ModelFolder,
                **stages: Any) -> dict[str, float]:
        done.append(("distill", source.path.name, recipe, out.name, smaller.path.name))
        out.mkdir()
        for name in (*SHIPPED, "curves.png"):
            (out / name).write_text(name, "utf-8")
        return {"accuracy": 0.5}

    for step in (finetune, trim, distill):
        monkeypatch.setattr(train_demo, step.__name__, step)
    return done


def test_the_demo_is_made_in_four_steps(tmp_path: Path, steps: list[tuple[Any, ...]],
                                        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    glue, backbone = tmp_path / "SST-2", write_checkpoint(tmp_path / "backbone")
    glue.mkdir()
    for split, texts in (("train", ["good", "bad", "a film"]), ("dev", ["the cat"])):
        lines = "".join(f"{text}\t1\n" for text in texts)
        (glue / f"{split}.tsv").write_text(f"sentence1\tlabel\n{lines}", "utf-8")
    monkeypatch.setattr(sys, "argv", ["train_demo", "--data", str(tmp_path), "--backbone", str(backbone), "--work",
                                      str(tmp_path / "work"), "--out", str(tmp_path / "demo")])
    monkeypatch.setattr(train_demo, "use_threads", lambda count: None)
    main()
    both, texts = {"words": WORDS, "positions": POSITIONS}, ["good", "bad", "a film"]
    made = [  # with one vocabulary, which a student must share with its teacher
        ("finetune", "backbone", "sst2", 3, 1, "sst2-teacher"),
        ("trim", "sst2-teacher", "demo-teacher", texts, both),
        ("trim", "sst2-teacher", "demo-start", texts, both | {"layers": LAYERS, "neurons": NEURONS}),
        ("distill", "demo-teacher", SECFORMER, "demo-student", "demo-start"),
    ]
    assert steps == made
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == sorted(SHIPPED)
    assert "0.5" in capsys.readouterr().out
    steps.clear()
    (tmp_path / "work/demo-student").rename(tmp_path / "before")
    main()
    assert steps == made[1:], "a teacher that is there is not trained again"


def test_the_shipped_folder_has_what_is_shipped() -> None:
    from secformer import demo_model

    assert set(SHIPPED) <= {p.name for p in Path(demo_model()).iterdir()}
