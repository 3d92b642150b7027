"""A folder's tokenizer for the page: its tokenizer.json as the library here would write it, and tables of characters.

Only what the page's JavaScript does exactly as the library is taken (`static/core/tokenizer`); the rest is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from secformer.models.data.tokenizer import Tokenizer
from secformer.mpc.errors import ModelError
from secformer.page.characters import bert_tables, byte_tables, order_tables

# The patterns of byte-level tokenizers beside GPT-2's own, which the step ByteLevel has: those of Llama 3 and of Qwen 2
PATTERNS = tuple(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers +
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+" for numbers in (r"\p{N}{1,3}", r"\p{N}"))
PROCESSORS = ("TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel", "Sequence")
NFC = "NFC"  # the normalizer of Qwen 2 and of ModernBERT
PROBE = "a"
TAKEN = "it takes those of BERT (WordPiece) and of GPT-2, RoBERTa, Llama 3 and Qwen 2 (byte-level BPE)"


def exported(tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tokenizer.json, and what else the page must know of the tokenizer.

    Raises ModelError for a tokenizer that cannot be read, or that the page does not do exactly.
    """
    opened = tokenizer.opened
    if not opened.is_fast:
        raise ModelError(f"the tokenizer in {tokenizer.folder} is not a fast one (tokenizer.json), and the page runs "
                         f"no other; write one with `transformers`, or leave this model to the Python client")
    whole: dict[str, Any] = json.loads(opened.backend_tokenizer.to_str())
    require(whole, str(tokenizer.folder))
    kept = {name: whole[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")}
    given = opened(PROBE, verbose=False)
    tables = dict(bert_tables() if whole["model"]["type"] == "WordPiece" else byte_tables())
    return kept, {
        "characters": tables | dict(order_tables() if whole["normalizer"] is not None else {}),
        "side": opened.truncation_side, "types": "token_type_ids" in given,
    }


def require(whole: Mapping[str, Any], where: str) -> None:
    """Raises ModelError for a tokenizer.json that the page does not do exactly. `where` names it in errors."""
    model, words, normalizer = whole["model"], whole["pre_tokenizer"] or {}, whole["normalizer"]
    processors = _steps(whole["post_processor"], "processors")
    problem = None
    if model["type"] == "WordPiece":
        if normalizer is None or normalizer["type"] != "BertNormalizer" or words.get("type") != "BertPreTokenizer":
            problem = f"normalizes and cuts texts in another way than BERT ({_named(normalizer)}, {_named(words)})"
    elif model["type"] == "BPE":
        problem = _byte_problem(model, words, normalizer)
    else:
        problem = f"is a {model['type']}"
    problem = problem or next((f"finishes texts with {each['type']}" for each in processors
                               if each["type"] not in PROCESSORS), None)
    if any(token["single_word"] for token in whole["added_tokens"]):
        problem = problem or "has added tokens that are found as whole words only (single_word)"
    if problem is not None:
        raise ModelError(f"the page cannot tokenise exactly as the tokenizer in {where}, which {problem}; {TAKEN}. Use "
                         f"the Python client or the gateway for this model")


def _byte_problem(model: Mapping[str, Any], words: Mapping[str, Any], normalizer: Any) -> str | None:
    steps = _steps(words, "pretokenizers")
    if normalizer is not None and normalizer["type"] != NFC:
        return f"normalizes texts ({_named(normalizer)})"
    if not steps or steps[-1]["type"] != "ByteLevel":
        return "is a BPE without bytes"
    for step in steps[:-1]:
        known = step["type"] == "Digits" or (step["type"] == "Split" and step["pattern"].get("Regex") in PATTERNS
                                             and step["behavior"] == "Isolated" and not step["invert"])
        if not known:
            return f"cuts texts by a step {step['type']} of its own"
    if model["dropout"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"] or model["byte_fallback"]:
        return "merges with dropout, prefixes, suffixes or fallbacks"
    return None


def _steps(config: Any, name: str) -> list[Any]:
    return [] if not config else list(config[name]) if config["type"] == "Sequence" else [config]


def _named(config: Any) -> str:
    return str(config["type"]) if config else "nothing"
