"""Tokenizers as clients get them: what they give is what transformers' own give, and nothing else is taken."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bytes_lab import write_bytes, write_old_bytes
from checkpoints import write_tokenizer
from light_lab import light
from text_lab import END, START, TEMPLATE, write_byte_tokenizer

from secformer import demo_model
from secformer.models.data import saved_tokenizer
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.saved_tokenizer import FACTS, FAST, PROBES, Facts, SavedTokenizer, load, opened, save
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.data.tokenizer_files import write_for_clients
from secformer.models.generation.stops import write_ends
from secformer.mpc.errors import InputError, ModelError

INPUTS = TokenInputs(100_000, 2, 60, 8)
SCRIPTS = ((0x20, 0x7F), (0xA0, 0x17F), (0x370, 0x400), (0x400, 0x460), (0x590, 0x5F5), (0x600, 0x700),
           (0x900, 0x980), (0xE00, 0xE5C), (0x1100, 0x1200), (0x2000, 0x2070), (0x3040, 0x3100), (0x4E00, 0x5000),
           (0xAC00, 0xAD00), (0xFF01, 0xFF60), (0x1F300, 0x1F650))


def roberta(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}), "utf-8")
    write_bytes(folder, 60)


def old_roberta(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}), "utf-8")
    write_old_bytes(folder, 60)


def bert(folder: Path) -> None:
    write_tokenizer(folder, 60)


def cleaning(folder: Path) -> None:
    """As old BERTs, which write no space before punctuation, and cut on the left."""
    write_tokenizer(folder, 60)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {
        "clean_up_tokenization_spaces": True, "truncation_side": "left"}), "utf-8")


def demo(folder: Path) -> None:
    for name in (FAST, "tokenizer_config.json"):
        (folder / name).write_bytes((demo_model() / name).read_bytes())


def chat(folder: Path) -> None:
    write_byte_tokenizer(folder, 60, start=True)


KINDS = (bert, cleaning, demo, roberta, old_roberta, chat)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tokenizer, Tokenizer]:
    """A folder's own tokenizer, and the one that its clients open."""
    own, given = tmp_path / "own", tmp_path / "given"
    own.mkdir()
    given.mkdir()
    request.param(own)
    tokenizer = Tokenizer(own, INPUTS)
    write_for_clients(own, given)
    assert (given / FACTS).is_file() and isinstance(load(given), SavedTokenizer)
    return tokenizer, Tokenizer(given, INPUTS)


def many() -> list[str]:
    """Texts of 15 scripts, alone and mixed, with spaces and special tokens between."""
    rng = np.random.default_rng(0)
    found = list(PROBES)
    for i in range(300):
        blocks = [SCRIPTS[i % len(SCRIPTS)]] if i % 3 else [SCRIPTS[j] for j in rng.integers(0, len(SCRIPTS), 3)]
        points = np.concatenate([rng.integers(*block, rng.integers(1, 9)) for block in blocks])
        words = "".join(map(chr, points))
        found.append(words[:3] + [" ", "  ", " the cat. ", "[MASK]", " <mask>", "\n"][i % 6] + words[3:])
    return found


def test_every_text_is_read_alike(both: tuple[Tokenizer, Tokenizer]) -> None:
    texts = many()
    for given in (texts, list(zip(texts, reversed(texts), strict=True))):
        one, other = (each.read(given, truncation=True) for each in both)
        assert one.places is not None and other.places is not None
        assert len(one.rows) == len(given) and max(map(len, one.rows)) > 8
        for a, b, p, q in zip(one.rows, other.rows, one.places, other.places, strict=True):
            for name in ("ids", "segments", "mask"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
            for name in ("part", "word", "spans"):
                np.testing.assert_array_equal(getattr(p, name), getattr(q, name))
    for row in one.rows[:100]:
        ids = row.ids.tolist()
        assert both[0].words(ids) == both[1].words(ids) and both[0].generated(ids) == both[1].generated(ids)
        assert both[0].words(ids, special=False) == both[1].words(ids, special=False)


def test_texts_are_cut_alike_at_every_length(both: tuple[Tokenizer, Tokenizer]) -> None:
    text, second = "The cat sat on the mat, and it was very good.", "it was not! " * 3
    for most in range(5, 12):
        short = [Tokenizer(each.folder, TokenInputs(100_000, 2, most, 8)) for each in both]
        for given in ([text], [(text, second)], [(second, text)]):
            one, other = (each.rows(given, truncation=True)[0].ids.tolist() for each in short)
            assert one == other and len(one) <= most
    with pytest.raises(InputError, match="this model takes at most 60"):
        both[1].rows(text * 20)
    assert both[1].rows(text)[0].ids.tolist() == both[0].rows(text)[0].ids.tolist(), "cutting leaves no trace"


def test_what_else_is_asked_of_a_tokenizer(both: tuple[Tokenizer, Tokenizer]) -> None:
    own, given = both
    for name in ("mask", "specials", "prompt_tokens", "takes_pairs", "chat_template"):
        assert getattr(own, name) == getattr(given, name), name
    for text in ("[MASK]", "<mask>", "<|start|>", "cat"):
        assert own.special(text) == given.special(text)
    for text in ("", "the cat <mask>"):
        assert [own.tokens(text, special=s) for s in (True, False)] == [given.tokens(text, special=s)
                                                                       for s in (True, False)]
    for size in (100_000, 4):
        found = []
        for each in both:
            try:
                found.append(Tokenizer(each.folder, TokenInputs(size, 2, 60, 8, pad=3)).compare(masks=True))
            except ModelError as error:
                found.append([str(error).replace(str(each.folder), "")])
        assert found[0] == found[1]


def test_messages_become_the_same_text(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    (tmp_path / "given").mkdir()
    write_byte_tokenizer(tmp_path / "own", start=True)
    own, given = (Tokenizer(tmp_path / name, INPUTS) for name in ("own", "given"))
    write_for_clients(own.folder, given.folder)
    messages = [{"role": "user", "content": " hello "}]
    assert given.chat_template == TEMPLATE and given.chat(messages) == own.chat(messages)
    assert given.tokens("hello")[0] == START
    with pytest.raises(InputError, match="does not take messages with the roles 'narrator'"):
        given.chat([{"role": "narrator", "content": "a"}])


def test_a_saved_tokenizer_is_saved_again_as_it_is(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    bert(tmp_path / "a")
    for one, other in ("ab", "bc"):
        write_for_clients(tmp_path / one, tmp_path / other)
    for name in (FAST, FACTS):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("package", ["transformers", "tokenizers", "jinja2"])
def test_what_is_missing_is_said(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given").mkdir()
    chat(tmp_path / "own")
    write_for_clients(tmp_path / "own", tmp_path / "given")
    monkeypatch.setitem(sys.modules, package, None)
    given = Tokenizer(tmp_path / "given", INPUTS)
    if package == "tokenizers":
        with pytest.raises(ModelError, match=r'`tokenizers`.* install it: pip install "secformer\[client\]"'):
            given.rows("hello")
    elif package == "jinja2":
        with pytest.raises(ModelError, match=r'`jinja2`.* pip install "secformer\[chat\]"'):
            given.chat([{"role": "user", "content": "hello"}])
    else:
        assert given.rows("hello") and given.chat([{"role": "user", "content": "hello"}])
        with pytest.raises(ModelError, match=r'pip install "secformer\[models\]"'):
            Tokenizer(tmp_path / "own", INPUTS).rows("hello")


# ---- which are saved -------------------------------------------------------------------------------------------------


def changed(found: Any, **own: Any) -> Any:
    """The tokenizer as one of a class with methods of its own."""
    found.__class__ = type("Own", (type(found),), own)
    return found


def test_a_class_with_methods_of_its_own_is_not_saved(tmp_path: Path) -> None:
    bert(tmp_path)
    before = (tmp_path / FAST).read_bytes()
    assert not save(changed(opened(tmp_path), _decode=lambda self, *a, **k: "other"), tmp_path)
    assert not save(object(), tmp_path)
    splitting = opened(tmp_path)
    splitting.split_special_tokens = True
    assert not save(splitting, tmp_path)
    assert not (tmp_path / FACTS).exists() and (tmp_path / FAST).read_bytes() == before


@pytest.mark.parametrize("change", [
    lambda found: setattr(found, "model_input_names", ["input_ids"]),
    lambda found: setattr(found, "truncation_side", "left"),
], ids=["segments", "side"])
def test_facts_that_change_an_answer_are_told_apart_by_the_probes(change: Callable[[Any], None],
                                                                  tmp_path: Path) -> None:
    bert(tmp_path)
    assert save(opened(tmp_path), tmp_path)
    saved, other = load(tmp_path), opened(tmp_path)
    assert saved is not None and saved_tokenizer._same(other, saved)
    change(other)
    assert not saved_tokenizer._same(other, saved)


# ---- files that are refused ------------------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path) -> Path:
    bert(tmp_path)
    assert save(opened(tmp_path), tmp_path)
    return tmp_path


def test_facts_have_one_meaning(given: Path) -> None:
    facts = Facts.from_json((given / FACTS).read_bytes(), "here")
    assert Facts.from_json(facts.to_json(), "here") == facts and facts.segments and facts.mask == (4, "[MASK]")


@pytest.mark.parametrize(("key", "value"), [
    ("sha256", 7), ("segments", 1), ("side", "middle"), ("clean", None), ("specials", [1, -1]), ("specials", [True]),
    ("specials", "1"), ("pad", "0"), ("pad", 2**32), ("mask", [4]), ("mask", [4, 4]), ("mask", "[MASK]"),
    ("chat_template", ["a"]), ("special", {"a b": "c"}), ("special", {"bos_token": 1}), ("special", []), ("more", 1)])
def test_wrong_facts(key: str, value: Any, given: Path) -> None:
    facts = json.loads((given / FACTS).read_text("utf-8")) | {key: value}
    (given / FACTS).write_text(json.dumps(facts), "utf-8")
    with pytest.raises(ModelError, match=rf"{FACTS}: {key} must stand there as provisioning writes it"):
        Tokenizer(given, INPUTS).rows("the cat")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": "secformer tokenizer 2"}', "{" * 9000])
def test_facts_that_are_none(text: str, given: Path) -> None:
    (given / FACTS).write_text(text, "utf-8")
    with pytest.raises(ModelError, match=FACTS):
        Tokenizer(given, INPUTS).rows("the cat")


def test_facts_belong_to_their_tokenizer(given: Path) -> None:
    (given / FAST).write_bytes((given / FAST).read_bytes() + b" ")
    with pytest.raises(ModelError, match=rf"is not the file that {FACTS} beside it describes"):
        Tokenizer(given, INPUTS).rows("the cat")
    facts = json.loads((given / FACTS).read_text("utf-8"))
    (given / FAST).write_bytes(b"{}")
    (given / FACTS).write_text(json.dumps(facts | {"sha256": hashlib.sha256(b"{}").hexdigest()}), "utf-8")
    with pytest.raises(ModelError, match="Install the version of the package `tokenizers` that the model's owner has"):
        Tokenizer(given, INPUTS).rows("the cat")
    (given / FAST).unlink()
    with pytest.raises(ModelError, match=FAST):
        load(given)


def test_prompts_and_tokens_need_no_transformers(tmp_path: Path) -> None:
    """A client of a model that generates text: its prompt, where texts end, and the text of tokens."""
    own, given = tmp_path / "own", tmp_path / "given"
    given.mkdir()
    chat(own)
    write_for_clients(own, given)
    write_ends([END], given)
    code = """
from pathlib import Path
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.generation.prompts import render
from secformer.models.generation.stops import TextStream, end_tokens
folder = Path(sys.argv[1])
tokenizer = Tokenizer(folder, TokenInputs(1000, 0, 60, 8))
ids = render(tokenizer, "hello world", 4).ids
stream = TextStream(tokenizer, [], stop=["<|end|>"], ends=end_tokens(folder))
print(list(map(int, ids)), [stream.take(int(i)) for i in ids], *end_tokens(folder), tokenizer.chat_template is not None)
"""
    ids = Tokenizer(own, INPUTS).tokens("hello world")
    assert light(code, str(given)) == f"{ids} ['', 'hello', ' world'] {END} True\n"
