"""Training: teachers learn, students learn from teachers, interruptions do not show, and what is written is a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from safetensors.numpy import load_file

from secformer.models.data.batch import Batch
from secformer.models.distill.evaluate import evaluate
from secformer.models.distill.tasks import Examples, Task
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE
from secformer.models.ranges.trained import DESIGNS
from secformer.models.run.local import plain_bert, secure_bert
from secformer.mpc.errors import ModelError, RangeError, SettingsError
from secformer.protocols.recipes import MPCFORMER, SECFORMER

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
from secformer.models.distill.exact import EXACT_TORCH  # noqa: E402
from secformer.models.distill.finetune import dev_logits, finetune  # noqa: E402
from secformer.models.distill.losses import inner_loss, logits_loss  # noqa: E402
from secformer.models.distill.model import load, start  # noqa: E402
from secformer.models.distill.stage import Stage, order  # noqa: E402
from secformer.models.distill.student import distill  # noqa: E402
from secformer.models.distill.torch_session import TorchSession  # noqa: E402
from secformer.models.distill.trace import Trace  # noqa: E402
from secformer.models.distill.trim import trim  # noqa: E402

TASK = Task("own", ("text",), "label", ("bad", "good"), ("accuracy", "f1"), ids=False)
NUMBERS = Task("own", ("text",), "label", ("score",), ("pearson", "spearman"))
TEACH = Stage("labels", rate=1e-2, epochs=8, batch=8, seed=3, words=True)
INNER, LOGITS = Stage("inner", rate=2e-3, epochs=6, batch=8), Stage("logits", rate=2e-3, epochs=3, batch=8)


def examples(count: int, seed: int, task: Task = TASK) -> Examples:
    """Sentences with one telling word; the label, or a number, is that word's."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        words = [str(w) for w in rng.choice(["the", "cat", "sat", "on", "film", "was", "it"], rng.integers(1, 6))]
        label = int(rng.integers(2))
        words.insert(int(rng.integers(len(words) + 1)), ("bad", "good")[label])
        texts.append(" ".join(words))
        labels.append(label)
    return Examples(texts, np.array(labels, np.float64 if task.regression else np.int64))


TRAIN, DEV = examples(96, 1), examples(40, 2)
quiet: Callable[[str], None] = lambda text: None  # noqa: E731


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder(write_checkpoint(tmp_path_factory.mktemp("encoder"), scale=0.4))


@pytest.fixture(scope="module")
def teacher(encoder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("work") / "teacher"
    found = finetune(encoder, TASK, TRAIN, DEV, out, stage=TEACH, tell=quiet)
    assert found["accuracy"] > 0.9
    return out


@pytest.fixture(scope="module")
def student(teacher: Path) -> Path:
    out = teacher.parent / "student"
    distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, out, inner=INNER, logits=LOGITS, tell=quiet)
    return out


# ---- what is written -------------------------------------------------------------------------------------------------


def test_a_teacher_is_an_ordinary_checkpoint(teacher: Path) -> None:
    config = json.loads((teacher / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and "secformer" not in config
    assert config["id2label"] == {"0": "bad", "1": "good"} and config["label2id"] == {"bad": 0, "good": 1}
    assert {"bert.pooler.dense.weight", "classifier.bias"} <= set(load_file(teacher / "model.safetensors"))
    assert (teacher / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((teacher / "training").glob("*.safetensors"))
    assert json.loads((teacher / "training" / "result.json").read_text())["accuracy"] > 0.9
    out = secure_bert(teacher, ["a good film", "it was bad"], backend="numpy")
    assert out.labels == ["good", "bad"]


def test_transformers_reads_what_is_written(teacher: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(teacher)
    tokens = transformers.AutoTokenizer.from_pretrained(teacher)(list(DEV.texts[:4]), padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model.eval()(**tokens).logits.numpy()
    np.testing.assert_allclose(theirs, plain_bert(teacher, DEV.texts[:4]).logits, atol=1e-4)


def test_a_student_knows_its_recipe_and_ranges(student: Path) -> None:
    config = json.loads((student / "config.json").read_text())
    assert config["secformer"] == {"recipe": "secformer", "constants": {"quad_shift": 5.0}}
    assert (student / FILE).is_file()
    found = evaluate(student, TASK, DEV, secure=True, backend="numpy")
    assert found.recipe == "secformer" and found.secure is not None
    assert found.secure["accuracy"] > 0.9 and found.agreement == 1.0
    assert found.error is not None and found.error < 2e-2
    assert found.cost is not None and not found.notes  # the profile beside the checkpoint was used
    with pytest.raises(SettingsError, match="distilled for the functions of 'secformer'"):
        secure_bert(student, "a good film", recipe="faithful")


def test_evaluation_without_the_secure_run(student: Path) -> None:
    found = evaluate(student, TASK, DEV)
    assert found.secure is found.agreement is found.cost is None
    assert json.loads(json.dumps(found.as_dict()))["plain"] == found.plain


def test_float16_weights_are_those_that_were_measured(teacher: Path, tmp_path: Path) -> None:
    found = distill(ModelFolder(teacher), MPCFORMER, TASK, TRAIN, DEV, tmp_path / "half", inner=None,
                    logits=replace(LOGITS, epochs=1), half=True, tell=quiet)
    assert {a.dtype for a in load_file(tmp_path / "half" / "model.safetensors").values()} == {np.dtype(np.float16)}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["secformer"]["constants"]["quad"] == [
        0.125, 0.25, 0.5]
    assert evaluate(tmp_path / "half", TASK, DEV).plain == pytest.approx(found)


# ---- what is learnt --------------------------------------------------------------------------------------------------


def gap(student: Path, teacher: Path, recipe: Any) -> tuple[float, float]:
    """Inner and logits loss of a student on the dev set."""
    folder = ModelFolder(teacher)
    batch, s = Batch(tuple(folder.tokenizer.rows(DEV.texts))), TorchSession(dtype=torch.float64)
    mine, theirs = Trace(maps=True), Trace(maps=True)
    with torch.no_grad():
        a = load(ModelFolder(student))(s, batch, recipe, mine)
        b = load(folder)(s, batch, EXACT_TORCH, theirs)
        return float(inner_loss(mine, theirs, batch)), float(logits_loss(a, b, TASK))


def test_distillation_brings_a_student_nearer(teacher: Path, student: Path) -> None:
    before, after = gap(teacher, teacher, SECFORMER), gap(student, teacher, SECFORMER)
    assert after[0] < 0.7 * before[0] and after[1] < before[1]


def test_maps_are_what_the_protocol_makes_of_a_unit_matrix(teacher: Path) -> None:
    folder = ModelFolder(teacher)
    spec = folder.architecture.spec
    batch, s = Batch(tuple(folder.tokenizer.rows(DEV.texts))), TorchSession(dtype=torch.float64)
    trace = Trace(maps=True)
    assert batch.padded
    logits = load(folder)(s, batch, SECFORMER, trace)
    np.testing.assert_allclose(logits, load(folder)(s, batch, SECFORMER), atol=1e-12)  # looking changes nothing
    assert len(trace.hidden_states) == spec.layers + 1 and len(trace.attention_maps) == spec.layers
    for map_ in trace.attention_maps:
        assert map_.shape == (batch.size, spec.heads, batch.longest, batch.longest)
        np.testing.assert_allclose(map_.sum(-1), 1.0, atol=1e-3)
        assert float(map_.detach().permute(0, 3, 1, 2)[~torch.from_numpy(batch.mask)].abs().max()) == 0.0
    same = Trace(maps=True)
    load(folder)(s, batch, SECFORMER, same)
    assert float(inner_loss(same, trace, batch)) == 0.0


def test_labels_alone_are_no_distillation(teacher: Path, tmp_path: Path) -> None:
    found = distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, tmp_path / "out", logits=LOGITS,
                    labels_only=True, tell=quiet)
    assert found["accuracy"] > 0.8
    assert [p.name for p in sorted((tmp_path / "out" / "training").glob("logits*"))] == ["logits.json"]
    assert not (tmp_path / "out" / "training" / "inner.json").exists()


def test_regression(encoder: ModelFolder, tmp_path: Path) -> None:
    train, dev = examples(96, 1, NUMBERS), examples(40, 2, NUMBERS)
    teach = replace(TEACH, epochs=6)
    assert finetune(encoder, NUMBERS, train, dev, tmp_path / "t", stage=teach, tell=quiet)["pearson"] > 0.8
    found = distill(ModelFolder(tmp_path / "t"), SECFORMER, NUMBERS, train, dev, tmp_path / "s", inner=INNER,
                    logits=LOGITS, tell=quiet)
    assert found["pearson"] > 0.8
    result = evaluate(tmp_path / "s", NUMBERS, dev.first(8), secure=True, backend="numpy")
    assert result.agreement is None and result.secure == pytest.approx(result.plain, abs=0.02)


# ---- interruptions ---------------------------------------------------------------------------------------------------


class Stop(Exception):
    """Somebody pulled the plug."""


def interrupted_after(checks: int) -> Callable[[str], None]:
    seen = 0

    def tell(text: str) -> None:
        nonlocal seen
        seen += "loss" in text
        if seen > checks:
            raise Stop

    return tell


@pytest.mark.parametrize("checks", [0, 1, 2])
def test_interrupted_training_ends_where_it_would_have(teacher: Path, tmp_path: Path, checks: int) -> None:
    """In the first stage, at its end, and in the second: bit for bit."""
    inner, logits = replace(INNER, epochs=2, dropout=0.1), replace(LOGITS, epochs=2, dropout=0.1)

    def go(out: Path, tell: Callable[[str], None]) -> None:
        distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, out, inner=inner, logits=logits, tell=tell)

    go(tmp_path / "whole", quiet)
    with pytest.raises(Stop):
        go(tmp_path / "parts", interrupted_after(checks))
    said: list[str] = []
    go(tmp_path / "parts", said.append)
    assert any("resumed at step" in text for text in said) == (checks != 1)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name, values in whole.items():
        np.testing.assert_array_equal(values, parts[name])


def test_other_settings_do_not_go_on(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, tmp_path, inner=INNER, tell=interrupted_after(0))
    with pytest.raises(SettingsError, match=r"other settings \(differing: design, stages\)"):
        distill(ModelFolder(teacher), MPCFORMER, TASK, TRAIN, DEV, tmp_path, inner=replace(INNER, rate=1.0), tell=quiet)


def test_early_stopping_keeps_the_best(encoder: ModelFolder, tmp_path: Path) -> None:
    stage = replace(TEACH, epochs=30, patience=2)
    found = finetune(encoder, TASK, TRAIN, DEV, tmp_path, stage=stage, tell=quiet)
    state = json.loads((tmp_path / "training" / "labels.json").read_text())["state"]
    metrics = [point["metric"] for point in state["history"]]
    assert state["done"] and len(metrics) < 30 and metrics.index(max(metrics)) == len(metrics) - 3
    assert found["accuracy"] == max(metrics) == state["best"]


def test_a_loss_that_is_no_number_is_told(encoder: ModelFolder, tmp_path: Path) -> None:
    huge = Examples(TRAIN.texts, 1e38 * (-1.0) ** np.arange(len(TRAIN)))
    with pytest.raises(RangeError, match="lower the learning rate"):
        finetune(encoder, NUMBERS, huge, DEV, tmp_path, tell=quiet)


def test_batches_are_a_function_of_seed_and_epoch(encoder: ModelFolder) -> None:
    rows = encoder.tokenizer.rows(TRAIN.texts)
    first = order(rows, TEACH, 0)
    assert sorted(np.concatenate(first).tolist()) == list(range(len(rows)))
    for again, same in ((order(rows, TEACH, 0), True), (order(rows, TEACH, 1), False),
                        (order(rows, replace(TEACH, seed=4), 0), False)):
        assert (np.concatenate(again).tolist() == np.concatenate(first).tolist()) is same


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_models_that_cannot_be_trained(tmp_path: Path, teacher: Path) -> None:
    masked = ModelFolder(write_checkpoint(tmp_path / "masked", "BertForMaskedLM", prefix="bert."))
    with pytest.raises(ModelError, match="fine-tuning takes BertModel or BertForSequenceClassification"):
        finetune(masked, TASK, TRAIN, DEV, tmp_path / "out")
    with pytest.raises(ModelError, match="is a BertForMaskedLM"):
        distill(masked, SECFORMER, TASK, TRAIN, DEV, tmp_path / "out")
    three = ModelFolder(write_checkpoint(tmp_path / "three", "BertForSequenceClassification", prefix="bert."))
    with pytest.raises(ModelError, match=r"knows the labels|3 label"):
        distill(three, SECFORMER, TASK, TRAIN, DEV, tmp_path / "out")
    with pytest.raises(ModelError, match="already holds a model"):
        distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, tmp_path / "three")
    with pytest.raises(ModelError, match="the model to start from"):
        distill(ModelFolder(teacher), SECFORMER, TASK, TRAIN, DEV, teacher)


def test_stages_are_checked() -> None:
    for change in ({"rate": 0.0}, {"epochs": -1}, {"batch": 0}, {"checks": 0}):
        with pytest.raises(SettingsError, match=f"{next(iter(change))} must be positive"):
            replace(TEACH, **change)


def test_a_classifier_keeps_a_head_that_fits(teacher: Path) -> None:
    folder = ModelFolder(teacher)
    again, other = start(folder, ("no", "yes"), seed=0), start(folder, ("a", "b", "c"), seed=0)
    head = folder.checkpoint.read("classifier.weight", (2, 12))
    np.testing.assert_allclose(again.tensors["classifier.weight"].numpy(), head, rtol=1e-6)
    assert other.tensors["classifier.weight"].shape == (3, 12)


# ---- smaller students ------------------------------------------------------------------------------------------------


def test_trimmed_models(teacher: Path, tmp_path: Path) -> None:
    folder = ModelFolder(write_checkpoint(tmp_path / "four", "BertForSequenceClassification", prefix="bert.",
                                          labels=2, num_hidden_layers=4))
    (folder.path / "vocab.txt").write_text("\n".join(folder.tokenizer._tokenizer().convert_ids_to_tokens(range(39))))
    words = trim(folder, tmp_path / "words", TRAIN.texts, layers=4, neurons=20, words=39, positions=16)
    a, b = (plain_bert(path, DEV.texts[:5]).logits for path in (words.path, folder.path))
    np.testing.assert_allclose(a, b)
    task = replace(TASK, labels=words.architecture.spec.labels)
    small = trim(words, tmp_path / "small", TRAIN.texts, layers=2, neurons=8, words=39, positions=16)
    spec = small.architecture.spec
    assert (spec.layers, spec.intermediate, spec.positions) == (2, 8, 16)
    labels = np.zeros(len(TRAIN), np.int64)
    distill(words, SECFORMER, task, Examples(TRAIN.texts, labels), DEV, tmp_path / "out", smaller=small,
            inner=replace(INNER, epochs=1), logits=replace(LOGITS, epochs=1), tell=quiet)
    assert ModelFolder(tmp_path / "out").architecture.spec.layers == 2
    odd = trim(words, tmp_path / "odd", TRAIN.texts, layers=3, neurons=8, words=39, positions=16)
    with pytest.raises(ModelError, match="not a multiple"):
        distill(words, SECFORMER, task, TRAIN, DEV, tmp_path / "x", smaller=odd)
    fewer = trim(words, tmp_path / "fewer", TRAIN.texts, layers=2, neurons=8, words=30, positions=16)
    assert fewer.architecture.spec.vocab == 30
    with pytest.raises(ModelError, match="has vocabulary 30"):
        distill(words, SECFORMER, task, TRAIN, DEV, tmp_path / "x", smaller=fewer)
    assert len(fewer.tokenizer.rows(["catsat"])[0]) > 2  # words that were cut fall into pieces


def test_designs_are_those_of_the_paper() -> None:
    assert set(DESIGNS) == {"secformer", "mpcformer"}
    with pytest.raises(TypeError):
        DESIGNS["other"] = SECFORMER  # type: ignore[index]


def test_dev_logits_come_in_order(teacher: Path) -> None:
    folder = ModelFolder(teacher)
    found = dev_logits(load(folder), folder.tokenizer.rows(DEV.texts), EXACT_TORCH)
    np.testing.assert_allclose(found, plain_bert(teacher, DEV.texts).logits, atol=1e-4)
