"""A tiny byte-level BPE tokenizer, as decoders have: every text has tokens, and some characters take several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tokenizer import Tokenizer

SPECIAL = ("<|end|>", "<|start|>", "<|pad|>")
END, START = 0, 1
# Ġ is a space, Ċ the end of a line
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ċ Ċ")
TEMPLATE = ("{% if messages[0].role != 'system' %}<|start|>system\nBe brief.<|end|>\n{% endif %}"
            "{% for m in messages %}{% if m.role == 'ghost' %}{% continue %}{% endif %}"
            "{% if m.role == 'narrator' %}{{ raise_exception('no ' + m.role) }}{% endif %}"
            "<|start|>{{ m.role }}\n{{ m.content | trim }}<|end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")
WORDS = 256 + len(SPECIAL) + len(MERGES)


def write_byte_tokenizer(folder: Path, longest: int = 64, *, template: str | None = TEMPLATE,
                         start: bool = False) -> None:
    """tokenizer.json and its config. `start`: texts begin with <|start|>, as with a BOS."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(m.replace(" ", "") for m in MERGES)]
    backend = Backend(models.BPE({word: i for i, word in enumerate(words)}, [tuple(m.split()) for m in MERGES]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    if start:
        backend.post_processor = processors.TemplateProcessing(
            single="<|start|> $A", pair="<|start|> $A $B", special_tokens=[("<|start|>", START)])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    facts: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
                             "eos_token": SPECIAL[0], "bos_token": SPECIAL[1], "pad_token": SPECIAL[2]}
    if template is not None:
        facts["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), "utf-8")


def change_vocabulary(folder: Path, **ids: int) -> None:
    """Gives tokens of a folder's tokenizer these ids, known tokens or further ones. Who had such an id takes the
    token's own, if it has one."""
    file = folder / "tokenizer.json"
    facts = json.loads(file.read_text("utf-8"))
    words = facts["model"]["vocab"]
    for token, i in ids.items():
        held = next((other for other, j in words.items() if j == i), None)
        if held is not None:
            words[held] = words[token]
        words[token] = i
    file.write_text(json.dumps(facts), "utf-8")


def byte_tokenizer(folder: Path, longest: int = 64, words: int = WORDS, **made: Any) -> Tokenizer:
    """The opened tokenizer of a folder, for a model of so many words and positions."""
    write_byte_tokenizer(folder, longest, **made)
    return Tokenizer(folder, TokenInputs(words, 0, longest, 8))
