"""A byte-level BPE tokenizer as RoBERTa's, trained on a few sentences in milliseconds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

SENTENCES = (
    "The cat sat on the mat in Paris, and it was good.", "A very good film; the dog was not bad, was it?",
    "In Paris the film was bad!", "Marie ran to the dog and the cat.", "Is it going to rain in Paris tomorrow?",
)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
PAD, MASK = 1, 4
WORDS = 320  # the vocabulary: SPECIAL, 256 bytes and merges


@cache
def _trained() -> Any:
    from tokenizers import ByteLevelBPETokenizer

    found = ByteLevelBPETokenizer()
    found.train_from_iterator(SENTENCES, vocab_size=WORDS, min_frequency=1, special_tokens=list(SPECIAL),
                              show_progress=False)
    return found


def write_bytes(folder: Path, longest: int) -> None:
    """tokenizer.json and its config. <mask> takes the space before it in, as RoBERTa's does."""
    from tokenizers import AddedToken, Tokenizer, processors

    backend = Tokenizer.from_str(_trained().to_str())
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True,
                                                          add_prefix_space=False)
    backend.save(str(folder / "tokenizer.json"))
    names = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>"}
    facts = {"tokenizer_class": "RobertaTokenizer", "model_max_length": longest,
             **{f"{name}_token": token for name, token in names.items()},
             "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False,
                            "normalized": False, "single_word": False, "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), "utf-8")


def write_old_bytes(folder: Path, longest: int) -> None:
    """The same vocabulary as old checkpoints have it: vocab.json and merges.txt."""
    _trained().save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": longest}), "utf-8")
