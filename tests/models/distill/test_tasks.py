"""Labelled texts: GLUE's files, files of one's own, and what is wrong with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from secformer.models.distill.tasks import TASKS, Task, for_model, glue_file, own_task, read, some, task_named
from secformer.models.families.bert import Bert
from secformer.models.families.encoder_facts import EncoderSpec
from secformer.mpc.errors import InputError, ModelError, SettingsError

SPEC = EncoderSpec(architecture="BertForSequenceClassification", labels=("negative", "positive"), vocab=39, types=2,
                positions=32, hidden=12, layers=2, heads=3, intermediate=20, eps=1e-12)


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_glue_rows_are_split_at_tabs_without_quoting(tmp_path: Path) -> None:
    text = 'sentence1\tsentence2\tlabel\nHe said "no.\t"Yes", she said.\t1\n\na\tb\t0\r\n'
    found = read(write(tmp_path / "dev.tsv", text), task_named("mrpc"))
    assert found.texts == [('He said "no.', '"Yes", she said.'), ("a", "b")]
    np.testing.assert_array_equal(found.labels, [1, 0])


def test_unusual_line_separators_stay_in_their_text(tmp_path: Path) -> None:
    found = read(write(tmp_path / "dev.tsv", "sentence1\tlabel\na\u2028b\x0bc\x85d\t1\n"), task_named("sst2"))
    assert found.texts == ["a\u2028b\x0bc\x85d"]


def test_regression_labels_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.tsv", "sentence1\tsentence2\tlabel\na\tb\t3.800\n")
    assert read(path, task_named("stsb")).labels.tolist() == [3.8]
    with pytest.raises(InputError, match=r"line 2: 'label' must be a number, got 'high'"):
        read(write(path, "sentence1\tsentence2\tlabel\na\tb\thigh\n"), task_named("stsb"))


def test_own_files_name_their_labels(tmp_path: Path) -> None:
    rows = [{"q": "who", "p": "me", "a": "yes"}, {"q": "why", "p": "so", "a": "no"}, {"q": "x", "p": "y", "a": "yes"}]
    path = write(tmp_path / "train.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    task = own_task(path, ["q", "p"], "a")
    assert task.labels == ("no", "yes") and not task.regression and task.metrics == ("accuracy", "f1")
    found = read(path, task)
    assert found.texts[0] == ("who", "me") and found.labels.tolist() == [1, 0, 1]
    assert own_task(path, ["q"], "a", regression=True).metrics == ("pearson", "spearman")


@pytest.mark.parametrize(("name", "text", "says"), [
    ("empty.tsv", "", "no examples"),
    ("header.tsv", "sentence1\tlabel\n", "no examples"),
    ("columns.tsv", "text\tlabel\na\t1\n", "no column 'sentence1'"),
    ("cells.tsv", "sentence1\tlabel\na\tb\t1\n", "3 cells, but the header has 2"),
    ("labels.tsv", "sentence1\tlabel\na\t1\nb\t2\n", "line 3: label '2' is unknown"),
    ("names.tsv", "sentence1\tlabel\na\tpositive\n", "label 'positive' is unknown"),
    ("broken.jsonl", '{"sentence1": "a"\n', "not JSON"),
    ("list.jsonl", "[1, 2]\n", "a list, not an object"),
    ("short.jsonl", '{"sentence1": "a", "label": 1}\n{"sentence1": "b"}\n', "line 2: no column 'label'"),
])
def test_bad_files(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(write(tmp_path / name, text), task_named("sst2"))


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tried .*dev\.tsv and .*SST-2"):
        glue_file(tmp_path, task_named("sst2"), "dev")
    (tmp_path / "dev.tsv").write_bytes(b"sentence1\tlabel\n\xff\xfe\t1\n")
    with pytest.raises(InputError, match="UTF-8"):
        read(tmp_path / "dev.tsv", task_named("sst2"))


def test_glue_folders_are_found_by_their_names(tmp_path: Path) -> None:
    for task in TASKS.values():
        (tmp_path / task.folder).mkdir()
        path = write(tmp_path / task.folder / "train.tsv", "x\n")
        assert glue_file(tmp_path, task, "train") == path == glue_file(tmp_path / task.folder, task, "train")


def test_tasks_and_columns_are_checked(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sst2, cola.*'sst'"):
        task_named("sst")
    path = write(tmp_path / "train.tsv", "text\tlabel\na\tx\nb\tx\n")
    with pytest.raises(SettingsError, match="one column, or a pair"):
        own_task(path, ["a", "b", "c"], "label")
    with pytest.raises(InputError, match="single label 'x'"):
        own_task(path, ["text"], "label")
    with pytest.raises(InputError, match=r"no column 'stars'; the columns are label, text"):
        own_task(path, ["text"], "stars")


def test_a_head_that_does_not_fit() -> None:
    sst2 = task_named("sst2")
    assert for_model(sst2, Bert(SPEC), "model") is sst2
    with pytest.raises(ModelError, match=r"2 label\(s\) \(negative, positive\), but the task stsb has 1"):
        for_model(task_named("stsb"), Bert(SPEC), "model")
    with pytest.raises(ModelError, match="is a BertForMaskedLM"):
        for_model(sst2, Bert(replace(SPEC, architecture="BertForMaskedLM")), "model")
    own = Task("own", ("text",), "label", ("negative", "positive"), ("accuracy",), ids=False)
    turned = for_model(own, Bert(replace(SPEC, labels=("positive", "negative"))), "model")
    assert turned.labels == ("positive", "negative")  # ids are the model's
    with pytest.raises(ModelError, match="knows the labels"):
        for_model(own, Bert(replace(SPEC, labels=("bad", "good"))), "model")


def test_a_fixed_choice_of_examples(tmp_path: Path) -> None:
    text = "sentence1\tlabel\n" + "".join(f"text {i}\t{i % 2}\n" for i in range(20))
    examples = read(write(tmp_path / "train.tsv", text), task_named("sst2"))
    few, same, other = some(examples, 5, 1), some(examples, 5, 1), some(examples, 5, 2)
    assert few.texts == same.texts != other.texts
    numbers = [int(str(t).split()[1]) for t in few.texts]
    assert numbers == sorted(numbers) and few.labels.tolist() == [n % 2 for n in numbers]
    assert some(examples, None, 0) is examples and some(examples, 99, 0) is examples
    with pytest.raises(SettingsError, match="at least one text"):
        some(examples, 0, 0)
