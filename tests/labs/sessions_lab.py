"""A tiny Llama that generates text, and its ranges, which are measured on a few texts only."""

from __future__ import annotations

from pathlib import Path

from decoders_lab import saved
from text_lab import WORDS, write_byte_tokenizer

from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import RangeProfile, measure
from secformer.models.run.prefix import begin

TEXTS = ["hello world", "The world is all that is the case.", "a b c d e f", "x" * 60]
LONGEST = 96


def speaker(folder: Path) -> tuple[Path, RangeProfile]:
    """A model whose texts begin with <|start|>, which is public."""
    path = saved(folder, "LlamaForCausalLM", vocab_size=WORDS, max_position_embeddings=LONGEST, bos_token_id=1,
                 eos_token_id=0, sharp=0.3, tokenizer=_start)  # scores in a short range, so that few fits are needed
    opened = ModelFolder(path)
    begin(opened, "auto")
    return path, measure(opened, TEXTS)


def _start(folder: Path, longest: int) -> None:
    write_byte_tokenizer(folder, longest, template=None, start=True)
