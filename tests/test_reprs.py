"""Records that are printed, logged or quoted by an error show no seed, no share and no token."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from tree import ROOT, modules

from secformer.models.data.batch import Batch, Row
from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.inputs import Request
from secformer.models.data.shares import OwnerShares, SeedShares
from secformer.models.generation.prompts import Rendered
from secformer.models.generation.sampling import Choice, Sampling
from secformer.mpc.dealer.names import RunKey
from secformer.mpc.dealer.seeds import Seeds
from secformer.mpc.kernels.words import Dropped, Masked, Sealing
from secformer.mpc.meter import Cost
from secformer.mpc.ops.linear import OpenedWeight
from secformer.roles.epochs import Epoch
from secformer.roles.link import Offer, Taken
from secformer.roles.messages import Answer, Half
from secformer.roles.supply import Supplied

if TYPE_CHECKING:
    from secformer.mpc.net.channel import Channel

SEED = b"QxZwVkJyRqXzWvKjYrQwXkZvJrYqWxKz"  # letters, so that its bytes can be read in a repr
IDS, SEGMENTS = np.array([28123, 29456, 27789]), np.array([613, 614, 615])
WORDS = np.array([[0xBEEF1234BEEF, 0xCAFE5678CAFE]], dtype=np.uint64)
LENGTHS, MASK = np.array([3]), np.ones((1, 3), dtype=bool)
ROW = Row(IDS, SEGMENTS, np.ones(3, np.int64))
RECORDS: dict[str, Any] = {
    "SeedShares": SeedShares({}, SEED), "OwnerShares": OwnerShares({}, SEED, cast("Checkpoint", None), 16),
    "Row": ROW, "Batch": Batch((ROW, ROW)), "Request": Request(WORDS.copy, (3, 7), True),
    "Half of a seed": Half("a", "m", LENGTHS, MASK, seed=SEED), "Half of words": Half("a", "m", LENGTHS, MASK, WORDS),
    "Answer": Answer({"logits": WORDS}, 16, Cost("total")), "Epoch": Epoch("e" * 32, {0: SEED, 1: SEED[::-1]}),
    "OpenedWeight": OpenedWeight((WORDS, WORDS)), "Dropped": Dropped(WORDS, 3),
    "Rendered": Rendered((28123, 29456), SEED.decode()), "Choice": Choice(28123, -29456.0),
    "Sampling": Sampling(stop=[SEED.decode()]),
    "RunKey": RunKey("name", SEED), "Seeds": Seeds({(0, 40): SEED}),
    "Epoch with runs": Epoch("e" * 32, {}, {"live": {0: Seeds({(0, 40): SEED})}}),
    "Supplied": Supplied("live", 3, SEED[:16], RunKey("name", SEED), cast("Channel", None)),
    "Taken": Taken("id", nonce=SEED[:16]), "Offer": Offer((), {}, nonce=SEED[:16]),
    "Masked": Masked(WORDS, WORDS, WORDS), "Sealing": Sealing(SEED, 0, WORDS, rest=WORDS),
}
RAW = {"bytes", "bytearray", "memoryview", "ndarray", "Array", "Seeds"}  # types of fields that may hold a secret
SHOWN = {  # fields of those types that may be printed, and why
    "Row.mask": "public", "Half.lengths": "public", "Half.mask": "public",
    **{f"Meeting.{name}": "public: places, by lengths and masks" for name in ("queries", "keys", "mask", "places",
                                                                            "alone")},
    "Table.facts": "public: sizes, and where arrays lie",
    "Examples.labels": "the trainer's own data, on the trainer's machine",
    "SecureOutput.attention_mask": "public",
    "SecureOutput.trusted": "the client's own: one bool per text",
    **{f"SecureOutput.{name}": "the client's own answer" for name in (
        "logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits", "probabilities",
        "scores", "last_hidden_state", "pooler_output", "sentence_embedding")},
}


def secrets() -> Iterator[str]:
    """Every way in which a part of the secrets above would be printed."""
    for seed in (SEED, SEED[::-1]):
        for i in range(len(seed) - 2):
            part = seed[i : i + 3]
            yield from (part.decode(), part.hex(), ", ".join(map(str, part)), " ".join(map(str, part)))
    for number in (*IDS, *SEGMENTS, *WORDS.reshape(-1)):
        yield from (str(number), f"{number:x}")


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_no_secret_is_printed(record: Any) -> None:
    """Alone, within another value, and in an error's message."""
    error = ValueError(f"cannot use {record} or {record!r}", record)
    for text in (repr(record), str(record), repr([record]), str({"it": record}), str(error), repr(error)):
        assert type(record).__name__ in text
        assert [secret for secret in secrets() if secret in text] == []


def test_what_is_public_is_printed() -> None:
    assert "[1, 1, 1]" in repr(ROW) and "e" * 32 in repr(RECORDS["Epoch"]) and "[3]" in repr(RECORDS["Half of words"])


def names_in(node: ast.AST) -> set[str]:
    return {n.id if isinstance(n, ast.Name) else n.attr for n in ast.walk(node)
            if isinstance(n, ast.Name | ast.Attribute)}


def raw_names(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """By module: the raw types, and the names that stand for them there, such as `Key = bytes | Array`."""
    found = {module: set(RAW) for module in trees}
    before = 0
    while before != (before := sum(map(len, found.values()))):
        for module, tree in trees.items():
            for line in tree.body:
                if isinstance(line, ast.ImportFrom) and line.module in found:
                    found[module] |= {a.asname or a.name for a in line.names if a.name in found[line.module]}
                elif (isinstance(line, ast.Assign) and isinstance(line.value, ast.Name | ast.BinOp | ast.Subscript)
                        and names_in(line.value) & found[module] and "Callable" not in names_in(line.value)):
                    found[module] |= {t.id for t in line.targets if isinstance(t, ast.Name) and not t.id.isupper()}
    return found


def is_record(cls: ast.ClassDef) -> bool:
    """Whether Python writes its repr: dataclasses and named tuples."""
    return "dataclass" in "".join(map(ast.unparse, cls.decorator_list)) or any("NamedTuple" in ast.unparse(base)
                                                                               for base in cls.bases)


def raw_fields() -> Iterator[tuple[str, bool]]:
    """Fields of the package's records whose type is raw data, and whether they are printed."""
    trees = {module: ast.parse((ROOT / path).read_text("utf-8")) for module, path in modules().items()}
    raw = raw_names(trees)
    for module, tree in trees.items():
        for cls in ast.walk(tree):
            if not isinstance(cls, ast.ClassDef) or not is_record(cls):
                continue
            for field in cls.body:
                if (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                        and names_in(field.annotation) & raw[module]):
                    value = ast.unparse(field.value) if field.value is not None else ""
                    own = any(isinstance(f, ast.FunctionDef) and f.name == "__repr__" for f in cls.body)
                    yield f"{cls.name}.{field.target.id}", "repr=False" not in value and not own


def test_every_record_of_raw_data_hides_it_or_says_why_not() -> None:
    """A new record that holds bytes or an array hides it, unless it is listed above."""
    found = dict(raw_fields())
    assert {"SeedShares.seed", "Epoch.seeds", "Epoch.runs", "RunKey.seed", "Row.ids", "Half.words",
            "Half.seed"} <= set(found), "the reader reads"
    trees = {module: ast.parse((ROOT / path).read_text("utf-8")) for module, path in modules().items()}
    raw = raw_names(trees)
    assert "Key" in raw["secformer.mpc.kernels.words"] and "Both" in raw["secformer.mpc.dealer.service"]
    assert "Key" not in raw["secformer.roles.sessions"], "another of the same name"
    assert {name for name, shown in found.items() if shown} == set(SHOWN)
