"""Tables of characters for the page's tokenizer, read off the tokenizer that the Python client uses.

Libraries know different versions of Unicode, and browsers know others. So the page asks its browser nothing: it takes
each character for what the library here takes it for. A table is a list of ranges [first, last, first, last, ...] of
code points, or of pairs [character, text, character, text, ...].
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from secformer.mpc.errors import ModelError

# All planes in which characters are assigned. In the others, all code points of a range are alike, as its first one.
PROBED = (*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000))
ALIKE = (range(0x40000, 0xE0000), range(0xE1000, 0xF0000), range(0xF0000, 0xFFFFE), range(0xFFFFE, 0x100000),
         range(0x100000, 0x10FFFE), range(0x10FFFE, 0x110000))
SEPARATOR = "|"  # nothing combines with it, and no normalizer changes it
HANGUL = range(0xAC00, 0xD7A4)  # syllables: decomposed by rule
LOWEST, HIGHEST = "\u0334", "\u0345"  # of combining classes 1 and 240: every other that moves passes one of them


@cache
def bert_tables() -> Mapping[str, Any]:
    """What BertNormalizer and BertPreTokenizer do with each character."""
    from tokenizers import normalizers, pre_tokenizers

    def bert(*on: str) -> dict[str, str]:
        steps = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
        return _changed(normalizers.BertNormalizer(**{step: step in on for step in steps}))

    cleaned = bert("clean_text")
    accents = {c for c, to in bert("strip_accents").items() if not to}
    pieces = pre_tokenizers.BertPreTokenizer().pre_tokenize_str("a" + "a".join(map(chr, PROBED)) + "a")
    cut, held = set[str](), set[int]()
    for piece, (start, end) in pieces:  # every other place holds a character, and the others an a
        held.update(range(start // 2, end // 2))
        if end == start + 1 and start % 2:
            cut.add(piece)
    gaps = {chr(code) for place, code in enumerate(PROBED) if place not in held}
    return {
        "removed": _ranges(c for c, to in cleaned.items() if not to),
        "spaces": _ranges(c for c, to in cleaned.items() if to),
        "chinese": _ranges(bert("handle_chinese_chars")),
        "accents": _ranges(accents), "lower": _pairs(bert("lowercase")),
        "gaps": _ranges(gaps), "marks": _ranges(cut - gaps),
    }


@cache
def order_tables() -> Mapping[str, Any]:
    """How characters are decomposed, put into canonical order, and composed again, without Hangul syllables."""
    from tokenizers import normalizers

    nfc, parts = normalizers.NFC(), _changed(normalizers.NFD())
    own = {c: to for c, to in parts.items() if ord(c) not in HANGUL}
    pairs = {c: nfc.normalize_str(to[:-1]) + to[-1] for c, to in own.items() if nfc.normalize_str(to) == c != to}
    return {"decompositions": _pairs(own),
            "classes": _classes(parts), "compositions": _pairs(pairs)}


@cache
def byte_tables() -> Mapping[str, Any]:
    """What the patterns of byte-level tokenizers take each character for."""
    from tokenizers import Regex, pre_tokenizers

    text = "".join(map(chr, PROBED))

    def those(pattern: str) -> list[int]:
        split = pre_tokenizers.Split(Regex(f"[^{pattern}]+"), "removed")
        return _ranges(c for piece, _ in split.pre_tokenize_str(text) for c in piece)

    runs = pre_tokenizers.Digits().pre_tokenize_str(text)  # runs of others and of digits take turns
    return {"letters": those(r"\p{L}"), "numbers": those(r"\p{N}"), "spaces": those(r"\s"),
            "digits": _ranges(c for piece, _ in runs[1::2] for c in piece)}


def _changed(normalizer: Any) -> dict[str, str]:
    """What each character becomes alone, where that is another text."""
    given = [chr(code) for code in PROBED if chr(code) != SEPARATOR]
    made = normalizer.normalize_str(SEPARATOR.join(given)).split(SEPARATOR)
    if len(made) != len(given):
        raise ModelError(f"a normalizer of this version of `tokenizers` changes {SEPARATOR!r}, by which characters are "
                         f"told apart here; use the version that the package was tested with")
    found = {c: to for c, to in zip(given, made, strict=True) if to != c}
    for codes in ALIKE:
        if (to := normalizer.normalize_str(chr(codes[0]))) != chr(codes[0]):
            found |= dict.fromkeys(map(chr, codes), to)
    return found


def _classes(parts: Mapping[str, str]) -> dict[str, list[int]]:
    """The characters that canonical order moves, by the rank of their combining class: lower ranks come first. `parts`
    are decompositions."""
    from tokenizers import normalizers

    nfd = normalizers.NFD()

    def swapped(firsts: Iterable[str], second: str, *, back: bool = False) -> list[bool]:
        """Whether each pair of marks changes places."""
        pairs = [second + c if back else c + second for c in firsts]
        return [a != b for a, b in zip(pairs, nfd.normalize_str(SEPARATOR.join(pairs)).split(SEPARATOR), strict=True)]

    whole = [c for c in map(chr, PROBED) if c != SEPARATOR and c not in parts]
    moving = [c for c, up, down in zip(whole, swapped(whole, LOWEST), swapped(whole, HIGHEST, back=True), strict=True)
              if up or down or c in (LOWEST, HIGHEST)]
    known = {unicodedata.combining(c): c for c in moving}
    ranks = [0] * len(moving)
    for number, each in known.items():
        if number:
            ranks = [rank + passed for rank, passed in zip(ranks, swapped(moving, each), strict=True)]
    return {str(1 + rank): _ranges(c for c, own in zip(moving, ranks, strict=True) if own == rank)
            for rank in sorted(set(ranks))}


def _ranges(characters: Iterable[str]) -> list[int]:
    """Characters as [first, last, ...]."""
    found: list[int] = []
    for code in sorted(map(ord, characters)):
        if found and found[-1] == code - 1:
            found[-1] = code
        else:
            found += [code, code]
    return found


def _pairs(changed: Mapping[str, str]) -> list[str]:
    return [text for pair in changed.items() for text in pair]
