"""The page tokenises as the Python client does: thousands of texts of many scripts, in node and by the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from core_lab import core
from scripts_lab import texts

from secformer import demo_model
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tokenizer import Tokenizer
from secformer.mpc.errors import ModelError
from secformer.page.tokenizing import PATTERNS, exported, require

MANY = 2000
REAL = "models/all-MiniLM-L6-v2"  # in the shared folder
GLUE = "data/glue/SST-2/dev.tsv"


def opened(folder: Path) -> Tokenizer:
    return Tokenizer(folder, TokenInputs(10**6, 2, 10**6, 8))


def page(tokenizer: Tokenizer, folder: Path) -> Path:
    """A page's folder that can tokenise, and no more."""
    whole, facts = exported(tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    (folder / "model.json").write_text(json.dumps({"format": "secformer page 1", "tokenizer": facts}), "utf-8")
    return folder


def write_bytes(folder: Path, words: Any, *, mask: bool = False, post: Any = None, nfc: bool = False) -> Tokenizer:
    """A byte-level BPE with two thousand merges, trained on texts of many scripts; texts are cut by `words`."""
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE())
    backend.pre_tokenizer, backend.decoder = words, decoders.ByteLevel()
    if nfc:
        backend.normalizer = normalizers.NFC()
    special = ["<s>", "</s>", "<pad>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=2300, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(texts(600, seed=1), trainer)
    if mask:
        backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        backend.add_tokens([AddedToken("HELLO", normalized=True), AddedToken("HELLO x", normalized=False, rstrip=True)])
    if post is not None:
        backend.post_processor = post
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', "utf-8")
    return opened(folder)


def byte_kinds(folder: Path) -> dict[str, Tokenizer]:
    """Byte-level tokenizers as families have them."""
    from tokenizers import Regex, pre_tokenizers, processors

    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def split(pattern: str) -> Any:
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), inner])

    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    runs = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), plain])
    roberta = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=True)
    return {
        "gpt2": write_bytes(folder / "gpt2", plain),
        "roberta": write_bytes(folder / "roberta", pre_tokenizers.ByteLevel(add_prefix_space=True), mask=True,
                               post=roberta),
        "smollm": write_bytes(folder / "smollm", digits), "runs": write_bytes(folder / "runs", runs, mask=True),
        "llama3": write_bytes(folder / "llama3", split(PATTERNS[0])),
        "qwen2": write_bytes(folder / "qwen2", split(PATTERNS[1]), nfc=True),
        "modernbert": write_bytes(folder / "modernbert", plain, nfc=True, mask=True),
    }


def alike(tokenizers: dict[str, Tokenizer], given: list[str], folder: Path) -> None:
    """Every text has the same ids by every tokenizer, in node and by the library."""
    jobs = [{"do": "ids", "folder": str(page(tokenizer, folder / f"page-{name}")), "texts": given}
            for name, tokenizer in tokenizers.items()]
    for (name, tokenizer), found in zip(tokenizers.items(), core(jobs), strict=True):
        wanted = tokenizer.opened(given, verbose=False)["input_ids"]
        wrong = [i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b]
        assert not wrong, f"{name}: {len(wrong)} texts differ, such as {given[wrong[0]]!a}: " \
                          f"{found[wrong[0]]} instead of {wanted[wrong[0]]}"


def test_texts_of_many_scripts_by_bert(tmp_path: Path) -> None:
    alike({"demo": opened(demo_model())}, texts(MANY), tmp_path)


def test_texts_of_many_scripts_by_byte_level_tokenizers(tmp_path: Path) -> None:
    kinds = byte_kinds(tmp_path)
    alike({name: kinds.pop(name) for name in ("gpt2", "qwen2")}, texts(MANY), tmp_path)
    alike(kinds, texts(400, seed=3), tmp_path)


def test_real_sentences_by_a_real_vocabulary(tmp_path: Path, shared: Path) -> None:
    if not (shared / REAL / "tokenizer.json").is_file():
        pytest.skip("no real tokenizer in the shared folder")
    found = [*texts(MANY, seed=5)]
    if (shared / GLUE).is_file():
        found += [line.split("\t")[0] for line in (shared / GLUE).read_text("utf-8").splitlines()]
    alike({"real": opened(shared / REAL)}, found, tmp_path)


@pytest.mark.parametrize(("lower", "strip", "clean", "chinese"), [(False, None, True, True), (True, False, True, True),
                                                                 (False, True, False, False)])
def test_every_option_of_berts_normalizer(tmp_path: Path, lower: bool, strip: bool | None, clean: bool,
                                          chinese: bool) -> None:
    whole = json.loads((demo_model() / "tokenizer.json").read_text("utf-8"))
    whole["normalizer"] |= {"lowercase": lower, "strip_accents": strip, "clean_text": clean,
                            "handle_chinese_chars": chinese}
    folder = tmp_path / "cased"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', "utf-8")
    alike({"cased": opened(folder)}, texts(500, seed=11), tmp_path)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The demo's tokenizer.json with another value at a path."""
    whole: dict[str, Any] = json.loads((demo_model() / "tokenizer.json").read_text("utf-8"))
    place = whole
    *before, last = path.split("/")
    for name in before:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[last] = value
    return whole


BYTES = {"type": "BPE", "dropout": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
         "byte_fallback": False, "vocab": {}, "merges": []}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def byte_level(**other: Any) -> dict[str, Any]:
    return {"added_tokens": [], "normalizer": None, "pre_tokenizer": LEVEL, "post_processor": None,
            "model": BYTES} | other


@pytest.mark.parametrize(("whole", "problem"), [
    (changed("model/type", "Unigram"), "is a Unigram"),
    (changed("model/type", "WordLevel"), "is a WordLevel"),
    (changed("normalizer", {"type": "Lowercase"}), r"another way than BERT \(Lowercase, BertPreTokenizer\)"),
    (changed("normalizer", None), r"another way than BERT \(nothing, BertPreTokenizer\)"),
    (changed("pre_tokenizer", {"type": "Whitespace"}), r"another way than BERT \(BertNormalizer, Whitespace\)"),
    (changed("post_processor/type", "Unheard"), "finishes texts with Unheard"),
    (changed("added_tokens/0/single_word", True), "single_word"),
    (byte_level(normalizer={"type": "NFKC"}), r"normalizes texts \(NFKC\)"),
    (byte_level(pre_tokenizer={"type": "Metaspace"}), "is a BPE without bytes"),
    (byte_level(pre_tokenizer=None), "is a BPE without bytes"),
    (byte_level(model=BYTES | {"dropout": 0.1}), "dropout"),
    (byte_level(model=BYTES | {"byte_fallback": True}), "fallbacks"),
    (byte_level(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False}, LEVEL]}),
     "a step Split of its own"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_tokenizers_that_the_page_does_not_do_exactly_are_refused(whole: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        require(whole, "here")


def test_the_tokenizers_that_the_page_does_are_taken() -> None:
    require(changed("model/type", "WordPiece"), "here")
    require(byte_level(), "here")
