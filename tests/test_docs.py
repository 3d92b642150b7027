"""The documents keep up with the code: the module map, links, examples, named functions, and no blank left open."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint
from tiny_chat_lab import measured_chat, tiny_chat
from tree import ROOT, modules

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MANUAL = ROOT / "docs/using.md"
EXAMPLES = ROOT / "README.md", MANUAL, ROOT / "docs/generation.md"
CHAT, SMALL = "my-chat-model", "my-small-model"
LONGEST_README = 800  # words
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "my-encoder": ("BertModel", {}), "my-reranker": ("BertForSequenceClassification", {"labels": 1}),
    "my-tagger": ("BertForTokenClassification", {}), "my-bert": ("BertForMaskedLM", {}),
    "my-reader": ("BertForQuestionAnswering", {}),
}
BLANK = "TB" + "D"
FILLED = "bench/results"  # blanks are filled from the recorded results


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Headings as the anchors that a Markdown renderer makes of them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_module_map_is_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python docs/make_map.py` makes the page that is there, and the page has every module once."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    text = (ROOT / "docs/modules.md").read_text("utf-8")
    assert text == importlib.import_module("make_map").page(), "run: python docs/make_map.py"
    mapped = re.findall(r"^\| `([^`]+\.py)` \|", text, re.MULTILINE)
    assert len(mapped) == len(set(mapped))
    assert set(mapped) == {path.as_posix() for path in modules().values()}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_resolve(path: Path) -> None:
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", path.read_text("utf-8"))
    for link in links:
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{path.name} links to {link}, which has no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_no_blank_is_left(path: Path) -> None:
    """Bites once the README's are filled."""
    if BLANK in (ROOT / "README.md").read_text("utf-8"):
        pytest.skip("figures are not filled in yet")
    assert BLANK not in path.read_text("utf-8")


def test_readme_begins_with_the_threat_model() -> None:
    paragraphs = [p for p in (ROOT / "README.md").read_text("utf-8").split("\n\n") if not p.startswith("#")]
    assert all(word in paragraphs[0] for word in ("Threat model", "dealer", "collude", "public"))


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= LONGEST_README


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models under the names that the manual gives to its readers' own."""
    folder = tmp_path_factory.mktemp("models")
    for name, (architecture, changes) in THEIRS.items():
        write_checkpoint(folder / name, architecture, num_hidden_layers=1,
                         prefix="" if architecture == "BertModel" else "bert.", **changes)
    return folder


@pytest.mark.parametrize("source", [block for page in EXAMPLES for block in blocks(page, "python")])
def test_examples_run(source: str, models: Path, capsys: pytest.CaptureFixture[str],
                      monkeypatch: pytest.MonkeyPatch) -> None:
    if CHAT in source and not (models / CHAT).exists():
        pytest.importorskip("jinja2")
        measured_chat(models / CHAT)
    if SMALL in source:
        tiny_chat(models / SMALL)
    monkeypatch.chdir(models)
    exec(compile(source, "an example", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out


def test_the_manual_names_the_commands_that_exist() -> None:
    from secformer.cli import main

    named = set(re.findall(r"^\| `secformer ([\w-]+)", MANUAL.read_text("utf-8"), re.MULTILINE))
    assert {"demo", "infer", "check", "compare", "profile", "evaluate", "query"} <= named
    for name in named:
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert left.value.code == 0


def defined(path: Path) -> set[str]:
    """Names that a module defines at its top, and its classes' methods as Class.method."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def stations() -> list[tuple[str, str]]:
    """What the walk names as `file.py: name`, or as `file.py` alone."""
    text = " ".join((ROOT / "docs/walk.md").read_text("utf-8").split())
    return re.findall(r"`([^`\s]+\.py)(?:: ([\w.]+))?`", text)


@pytest.mark.parametrize(("file", "name"), sorted(set(stations())))
def test_stations_of_the_walk_exist(file: str, name: str) -> None:
    assert (ROOT / file).is_file(), f"docs/walk.md names {file}, which does not exist"
    assert not name or name in defined(ROOT / file), f"docs/walk.md names {name}, which {file} does not define"


def test_the_walk_has_stations() -> None:
    assert len({station for station in stations() if station[1]}) >= 30


def test_exported_names_exist() -> None:
    import secformer

    for name in secformer.__all__:
        assert getattr(secformer, name) is not None
    tree = ast.parse((ROOT / "secformer/__init__.py").read_text("utf-8"))
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(secformer.__all__) - {"__version__"} <= typed, "type checkers do not see some exported names"
    with pytest.raises(AttributeError, match="exports"):
        _ = secformer.sekure_bert
