"""A tiny random chat model: a Llama of one layer with a tokenizer of bytes and a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decoders_lab import saved
from text_lab import END, START, WORDS, write_byte_tokenizer

from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import FILE, measure
from secformer.models.run.prefix import AUTO, begin

CONTEXT = 160  # tokens
MESSAGES = [{"role": "user", "content": "hello"}]


def tiny_chat(folder: Path, *, template: bool = True, **entries: Any) -> Path:
    """Writes the folder. Without a template, texts begin with BOS."""
    def tokenizer(where: Path, longest: int) -> None:
        if template:
            write_byte_tokenizer(where, longest)
        else:
            write_byte_tokenizer(where, longest, template=None, start=True)

    return saved(folder, "LlamaForCausalLM", tokenizer=tokenizer, vocab_size=WORDS, num_hidden_layers=1,
                 max_position_embeddings=CONTEXT, eos_token_id=END, bos_token_id=START, pad_token_id=None, **entries)


def measured_chat(folder: Path) -> Path:
    """The same, with a range profile beside it, so that it is loaded faster."""
    own = ModelFolder(tiny_chat(folder))
    begin(own, AUTO)
    measure(own).save(folder / FILE)
    return folder
