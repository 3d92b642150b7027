"""Tests stand where their modules stand: `mpc/ring.py` is held by `tests/mpc/test_ring.py`.

A module without a test file of its own has a row that says which tests hold it, and why. A test file that holds no
single module has a row that says what it is. Reads the sources; runs nothing of them.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from tree import ROOT, imports, modules

TESTS, LABS = ROOT / "tests", ROOT / "tests/labs"
STARTS = '"-m", "secformer"'  # in the source of whatever starts processes of this package

# Modules, or folders (with a slash) of modules, without a test file of their own: the test files that hold them, below
# tests/, and why there is no other. A module's row counts before its folder's.
HELD: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("secformer/__main__.py", ("secformer/test_cli.py",), "three lines, run in a process of its own"),
    ("secformer/shipped.py", ("secformer/test_cli.py", "models/ranges/test_profile.py"), "a path, taken by every demo"),
    ("secformer/version.py", ("test_packaging.py",), "one word, compared with the package's"),
    ("secformer/roles/", ("secformer/roles/test_served.py", "secformer/roles/test_served_faults.py"),
     "servers and their clients, as processes that talk to each other"),
    ("secformer/gateway/", ("secformer/gateway/test_web.py", "secformer/gateway/test_clients.py"),
     "every endpoint as callers meet it, over a port"),
    ("secformer/gateway/cells.py", ("secformer/gateway/test_desk.py",), "what stands behind a desk"),
    ("secformer/gateway/visits.py", ("secformer/gateway/test_desk.py",), "one request before a desk"),
    ("secformer/roles/asks.py", ("secformer/roles/test_dealer_server.py",), "notes that the dealer takes and refuses"),
    ("secformer/roles/audit_files.py", ("secformer/roles/test_audit.py",), "what the log writes, crashes included"),
    ("secformer/roles/signing.py", ("secformer/roles/test_audit.py", "secformer/roles/test_chain.py"),
     "signatures of anchors, that hold and that do not"),
    ("secformer/roles/entries.py", ("secformer/roles/test_kept_receipts.py",),
     "what a party writes down, as its clients see it"),
    ("secformer/batch/", ("secformer/batch/test_job.py", "secformer/batch/test_sources.py"),
     "whole jobs, in every state and over every file"),
    ("secformer/views/audited.py", ("secformer/commands/test_auditing.py",), "one table, printed by its command"),
    ("secformer/views/published.py", ("secformer/commands/test_page.py",), "one table, printed by its command"),
    ("secformer/page/trial.py", ("secformer/page/test_chromium.py",), "the page of roles that a browser really asks"),
    ("secformer/views/epochs.py", ("secformer/commands/test_epochs.py",), "one table, printed by its command"),
    ("secformer/roles/formats.py", ("secformer/roles/test_asking.py", "secformer/roles/test_rolling.py"),
     "what a client compares, with a party that says anything and with real ones"),
    ("secformer/roles/epoch_watch.py", ("secformer/roles/test_rotation.py",), "a thread of a party that is not asked"),
    ("secformer/views/tokens.py", ("secformer/commands/test_tokens.py",), "three lines, printed by their command"),
    ("models/run/asked.py", ("secformer/commands/test_asked.py",), "what commands and batch jobs ask of a model"),
    ("models/families/pooling.py", ("models/families/test_sentence.py",), "every way, by a sentence encoder"),
    ("models/families/encoder_facts.py", ("models/families/test_encoder.py",), "records, with the base they are for"),
    ("secformer/roles/reporting.py", ("secformer/roles/test_engine.py",), "what an engine says; the tests listen"),
    ("mpc/dealer/shelved.py", ("mpc/dealer/test_store.py",), "runs of a store, altered and cut"),
    ("mpc/backend.py", ("mpc/test_worlds.py",), "a choice that every world makes"),
    ("mpc/constants.py", ("mpc/test_recording.py",), "what recordings read, and how much of it is kept"),
    ("mpc/errors.py", ("mpc/test_faults.py", "mpc/test_share_misuse.py"), "classes; what raises them is tested"),
    ("mpc/functions.py", ("mpc/ops/test_series_verb.py", "mpc/ops/test_exponential.py"),
     "descriptions of functions, evaluated by the verbs"),
    ("mpc/meter.py", ("mpc/test_price.py", "mpc/dealer/test_plan_json.py"), "counts what verbs send; costs are JSON"),
    ("mpc/party.py", ("mpc/test_worlds.py", "mpc/test_faults.py"), "one end of a world"),
    ("mpc/programs.py", ("mpc/test_capture.py", "mpc/test_segments.py"), "which runs are recorded, in both ways"),
    ("mpc/primitives.py", ("mpc/test_local_ops.py", "mpc/test_price.py"), "what a session asks of its kind, by verbs"),
    ("mpc/operators.py", ("mpc/test_local_ops.py",), "operators of shares, by what they are about"),
    ("mpc/scales.py", ("mpc/test_local_ops.py", "mpc/ops/test_truncation.py"), "where verbs settle"),
    ("mpc/segmenting.py", ("mpc/test_segments.py",), "what is repeated, segment by segment"),
    ("mpc/session.py", ("mpc/test_local_ops.py", "mpc/test_price.py", "mpc/test_share_misuse.py"),
     "a verb at a time, by what it is about"),
    ("mpc/shares.py", ("mpc/test_local_ops.py", "mpc/test_share_misuse.py"), "what a share does and refuses"),
    ("mpc/simulate.py", ("mpc/test_worlds.py",), "a world"),
    ("mpc/kernels/", ("mpc/kernels/test_kernels.py", "mpc/kernels/test_limbs.py"),
     "every backend against the reference, bit for bit"),
    ("mpc/kernels/blocks.py", ("mpc/test_points.py",), "the generator of point functions"),
    ("mpc/kernels/points.py", ("mpc/test_points.py",), "every backend's rows, from keys"),
    ("mpc/kernels/cuda/", ("mpc/kernels/cuda/test_cuda_kernels.py", "mpc/kernels/cuda/test_cuda_products.py"),
     "launched on the host's fibers, and on a GPU where there is one"),
    ("mpc/net/", ("mpc/net/test_channels.py",), "one suite over all channels"),
    ("mpc/dealer/ahead.py", ("secformer/roles/test_cycle.py",), "a thread of a served party's cycle"),
    ("mpc/dealer/comparisons.py", ("mpc/dealer/test_kinds.py", "mpc/ops/test_comparison.py"),
     "the law of every kind, in one file; what is looked up, by the verbs"),
    ("mpc/dealer/products.py", ("mpc/dealer/test_kinds.py", "mpc/ops/test_products.py"),
     "the law of every kind, in one file; what is multiplied, by the verbs"),
    ("mpc/dealer/thresholds.py", ("mpc/dealer/test_kinds.py", "mpc/ops/test_thresholds.py"),
     "the law of every kind, in one file; what is counted, by the verb"),
    ("mpc/dealer/correlations.py", ("mpc/dealer/test_own_dealer.py",), "the seam, tried with another dealer"),
    ("mpc/dealer/expand.py", ("mpc/dealer/test_kinds.py",), "expands every kind, chunk by chunk"),
    ("mpc/dealer/plan.py", ("mpc/dealer/test_source.py", "mpc/dealer/test_plan_json.py"), "what sources follow"),
    ("mpc/dealer/service.py", ("mpc/dealer/test_kinds.py", "mpc/dealer/test_source.py"), "the other end of a source"),
    ("mpc/ops/book.py", ("mpc/dealer/test_plan_json.py", "mpc/sessions/test_twin_and_recorder.py"),
     "series agreed on, by roles and by the recorder"),
    ("mpc/ops/coin.py", ("mpc/test_guarding.py", "mpc/test_unit_rows.py"), "by the verbs that toss it"),
    ("mpc/ops/compare.py", ("mpc/ops/test_comparison.py",), "by its verbs"),
    ("mpc/ops/guard.py", ("mpc/test_guarding.py",), "a party's side of a guarded program"),
    ("mpc/ops/linear.py", ("mpc/ops/test_products.py",), "by its verbs"),
    ("mpc/ops/series.py", ("mpc/ops/test_series_verb.py",), "by its verb"),
    ("mpc/ops/truncate.py", ("mpc/ops/test_truncation.py",), "by its verbs"),
    ("mpc/ops/unit_rows.py", ("mpc/test_unit_rows.py",), "by its verb"),
    ("mpc/sessions/plain.py", ("mpc/sessions/test_twin_and_recorder.py",), "the twin beside the recorder"),
    ("mpc/sessions/recorder.py", ("mpc/sessions/test_twin_and_recorder.py",), "the recorder beside the twin"),
    ("mpc/sessions/secure.py", ("mpc/test_worlds.py", "mpc/test_views.py"), "one end of a world"),
    ("protocols/crypten.py", ("protocols/test_rivals.py",), "three systems, measured alike"),
    ("protocols/mpcformer.py", ("protocols/test_rivals.py",), "three systems, measured alike"),
    ("protocols/puma.py", ("protocols/test_rivals.py",), "three systems, measured alike"),
    ("protocols/fidelity.py", ("protocols/test_recipes.py",), "what functions say of themselves, read off recipes"),
    ("models/families/heads.py", ("models/families/test_bert.py",), "every head against transformers' vectors"),
    ("models/distill/curves.py", ("models/distill/test_export.py",), "a picture, drawn by every training"),
)

# Test files that hold no single module, and what they are.
OTHERS: dict[str, str] = {
    "test_docs.py": "the documents",
    "test_layers.py": "the whole package's shape",
    "test_mirror.py": "the tests themselves",
    "test_packaging.py": "builds and installs",
    "test_reprs.py": "what the package's records show when they are printed",
    "deploy/test_charts.py": "the Helm charts, rendered",
    "deploy/test_compose.py": "the compose files",
    "deploy/test_containerfile.py": "the Containerfile, and what a build may read",
    "deploy/test_systemd.py": "the systemd units",
    "fuzz/test_corpus.py": "the kept inputs of every target of fuzzing",
    "fuzz/test_targets.py": "whether what reads has a target of fuzzing",
    "models/run/test_generating_models.py": "generation with real tiny models of every family",
    "secformer/cells/test_served_cells.py": "two cells of real roles, and a gateway in front of them",
    "secformer/page/test_chromium.py": "the page in a real browser, against real roles",
    "secformer/page/test_core.py": "the page's JavaScript, run by node",
    "secformer/page/test_core_served.py": "the page's JavaScript and both engines",
    "secformer/gateway/test_clients.py": "other people's clients, before all roles",
    "secformer/roles/test_malicious_clients.py": "engines that get rows which no text has",
    "secformer/roles/test_recorded.py": "engines and the dealer on models of a GPU",
    "secformer/roles/test_audited.py": "one request in the logs of all roles",
    "secformer/roles/test_unwritable_audit.py": "all roles, while the disk refuses the lines of their audit logs",
    "secformer/roles/test_rolling.py": "versions side by side, and all that a running cell may have replaced",
    "secformer/roles/test_rollback.py": "all roles together, when their state was restored, cloned or set back",
    "secformer/roles/test_theft.py": "what a thief of all roles' files reads",
    "secformer/roles/test_served_ahead.py": "all roles, while party 1 fills its store and is one of several workers",
    "secformer/roles/test_served.py": "all roles together, as users meet them",
    "secformer/roles/test_served_fairness.py": "all roles, clients that ask too much and new certificates",
    "secformer/roles/test_served_faults.py": "all roles together, when something breaks",
    "examples/test_notebooks.py": "the notebooks of examples/",
    "mpc/test_cheating_party.py": "what a party that deviates reads, outside the model",
    "mpc/test_device_messages.py": "messages of GPU arrays, between channels and streams",
    "mpc/test_faults.py": "whole runs that fail, at a party or on the line",
    "mpc/test_graph_lab.py": "the model of a GPU that captures graphs",
    "mpc/test_graph_lab_mistakes.py": "mistakes that this model shows",
    "mpc/test_local_ops.py": "verbs that send nothing",
    "mpc/test_price.py": "weighs every verb",
    "mpc/test_shared_graphs.py": "programs that are one graph, and programs that are not",
    "mpc/test_secrecy.py": "the whole view of either party, in every verb",
    "mpc/test_secrecy_controls.py": "mistakes that the tests of secrecy find",
    "mpc/test_share_misuse.py": "what shares refuse, in every session",
    "mpc/test_views.py": "what each party sees of a run",
    "mpc/test_worlds.py": "whole programs over channels, kernels, formats and seeds",
    "mpc/dealer/test_known_words.py": "known answers: what every kind is cut into",
    "mpc/dealer/test_own_dealer.py": "a dealer that is not ours",
    "mpc/dealer/test_plan_json.py": "what roles tell each other as JSON",
    "mpc/kernels/test_kernels.py": "every backend against the reference, bit for bit",
    "mpc/kernels/cuda/test_bench_gpu.py": "the bench of kernels, on the host",
    "mpc/kernels/cuda/test_cuda_compile.py": "the CUDA sources",
    "mpc/kernels/cuda/test_cuda_kernels.py": "CUDA kernels against the reference",
    "mpc/kernels/cuda/test_cuda_products.py": "CUDA products against the reference, each way",
    "mpc/kernels/cuda/test_cuda_worlds.py": "whole programs on CUDA kernels",
    "mpc/net/test_channels.py": "one suite over all channels",
    "mpc/ops/test_comparison.py": "the verbs less, relu and maximum",
    "mpc/ops/test_products.py": "the verbs of products",
    "mpc/ops/test_series_verb.py": "the verb series",
    "mpc/ops/test_truncation.py": "the verbs settle and lift",
    "mpc/sessions/test_twin_and_recorder.py": "two sessions that must agree",
    "models/distill/test_families.py": "teachers of all families, from a pretrained model to a student on shares",
    "models/families/test_fillers.py": "texts with fillers, in every family",
    "models/run/test_outliers.py": "weights of many sizes, on shares",
    "protocols/test_rivals.py": "three systems' functions, measured alike",
    "protocols/test_secrecy_recipes.py": "the whole view of either party, in every recipe",
}


def own(path: Path) -> Path:
    """Where the tests of a source file stand, both relative to the root."""
    return Path("tests", path.parent, f"test_{path.stem}.py")


def mirrored(test: Path) -> Path:
    """The source file that a test file holds by its place, both relative to the root."""
    return test.relative_to("tests").with_name(f"{test.stem.removeprefix('test_')}.py")


SOURCES = {path: name for name, path in modules().items() if path.stem != "__init__"}
ORPHANS = [path for path in SOURCES if not (ROOT / own(path)).is_file()]


def row_of(path: Path) -> str | None:
    """The row that holds a module: its own, else that of the nearest folder."""
    name = path.as_posix()
    fitting = [where for where, _, _ in HELD if where == name or (where.endswith("/") and name.startswith(where))]
    return max(fitting, key=len, default=None)


# ---- what tests touch ------------------------------------------------------------------------------------------------


@cache
def imported(path: Path) -> frozenset[str]:
    """What a source file imports, wherever in it."""
    return frozenset(imports(path))


@cache
def read(path: Path) -> str:
    return (ROOT / path).read_text("utf-8")


@cache
def helpers(test: Path) -> frozenset[Path]:
    """A test file, the labs that it imports, and the conftests above it."""
    todo = [test, *(folder / "conftest.py" for folder in test.parents if (ROOT / folder / "conftest.py").is_file())]
    found: set[Path] = set()
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += [lab for name in imported(file) if (ROOT / (lab := Path("tests/labs", f"{name}.py"))).is_file()]
    return frozenset(found)


@cache
def touched(test: Path) -> frozenset[str]:
    """The modules that a test file and its helpers import: of a package, what that imports, too; and where they start
    processes of the package, its commands and what those import."""
    known = modules()
    todo = [name for file in helpers(test) for name in imported(file) if name in known]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [n for n in imported(known[name]) if n in known] if known[name].stem == "__init__" else []
    if any(STARTS in read(file) for file in (*helpers(test), *(known[name] for name in found))):
        commands = {name for name in known if name.startswith("secformer.commands.")}
        found |= {"secformer.__main__"} | commands.union(*(imported(known[name]) for name in commands)) & known.keys()
    return frozenset(found)


def holds(test: Path, path: Path) -> bool:
    """Whether a test file imports a module, or a module that imports it; or names it, as for another process."""
    name = SOURCES[path]
    return (name in touched(test) or any(name in imported(modules()[other]) for other in touched(test))
            or any(name in read(file) for file in helpers(test)))


# ---- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ORPHANS, ids=str)
def test_a_module_without_tests_of_its_own_has_a_reason(path: Path) -> None:
    assert row_of(path), f"no {own(path)}, and no row in HELD says what holds {path}"


@pytest.mark.parametrize(("where", "tests", "why"), HELD, ids=[row[0] for row in HELD])
def test_rows_hold_what_they_name(where: str, tests: tuple[str, ...], why: str) -> None:
    assert (ROOT / where).exists(), f"{where} does not exist"
    assert Path(where) not in SOURCES or Path(where) in ORPHANS, f"{where} has {own(Path(where))}: drop the row"
    held = [path for path in ORPHANS if row_of(path) == where]
    assert held, f"every module of {where} has tests of its own: drop the row"
    assert tests and why
    for name in tests:
        assert (TESTS / name).is_file(), f"tests/{name} does not exist"
        assert any(holds(Path("tests", name), path) for path in held), f"tests/{name} touches nothing of {where}"
    for path in held:
        assert any(holds(Path("tests", name), path) for name in tests), f"none of {', '.join(tests)} touches {path}"


def test_each_row_is_there_once() -> None:
    assert len({where for where, _, _ in HELD}) == len(HELD)


@pytest.mark.parametrize("test", sorted(path.relative_to(ROOT) for path in TESTS.rglob("test_*.py")), ids=str)
def test_a_test_file_mirrors_a_source_file_or_says_what_it_is(test: Path) -> None:
    stands = (ROOT / mirrored(test)).is_file()
    said = test.relative_to("tests").as_posix() in OTHERS
    assert stands or said, f"{test} holds {mirrored(test)}, which does not exist; move it, or add a row to OTHERS"
    assert not (stands and said), f"{test} holds {mirrored(test)}: drop its row in OTHERS"
    if stands and mirrored(test) in SOURCES:
        assert holds(test, mirrored(test)), f"{test} does not touch {mirrored(test)}"


def test_rows_of_others_name_files_that_exist() -> None:
    assert not [name for name in OTHERS if not (TESTS / name).is_file()]


def test_tests_stand_in_files_that_are_collected() -> None:
    """A test outside of a file test_*.py, such as in a lab, would never run."""
    stray = [f"{path.relative_to(ROOT)}: {node.name}" for path in TESTS.rglob("*.py")
             if not path.name.startswith("test_") for node in ast.parse(path.read_text("utf-8")).body
             if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert not stray, stray
