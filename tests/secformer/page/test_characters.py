"""Tables of characters: whole, and what the library does with single characters and with marks in any order."""

from __future__ import annotations

import unicodedata

import pytest

from secformer.page.characters import ALIKE, PROBED, bert_tables, byte_tables, order_tables


def codes(bounds: list[int]) -> set[int]:
    """The code points of a list of ranges."""
    found: set[int] = set()
    for first, last in zip(bounds[::2], bounds[1::2], strict=True):
        found |= set(range(first, last + 1))
    return found


def test_every_code_point_is_probed_or_like_one_that_is() -> None:
    from tokenizers import normalizers

    covered = sorted([*PROBED, *(code for part in ALIKE for code in part)])
    assert covered == [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for normalizer in (normalizers.NFD(), normalizers.NFC(), normalizers.BertNormalizer()):
        for part in ALIKE:
            text, first = "".join(map(chr, part)), chr(part[0])
            to = normalizer.normalize_str(first)
            alike = normalizer.normalize_str(text) == (text if to == first else to * len(part))
            assert alike, f"{normalizer} does not do the same with all of {part}"


def test_the_planes_in_between_hold_no_letters_digits_spaces_or_marks() -> None:
    from tokenizers import Regex, pre_tokenizers

    text = "".join(chr(code) for part in ALIKE for code in part[::9])
    assert len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)) == 1
    assert not pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}\s]+"), "removed").pre_tokenize_str(text)
    assert len(pre_tokenizers.Digits().pre_tokenize_str(text)) == 1


def test_tables_hold_what_is_known_of_characters() -> None:
    bert, level = bert_tables(), byte_tables()
    assert {0, 0xFFFD, 0xAD, 0x200B, 0xE000, 0xF1234, 0x10FFFD} <= codes(bert["removed"])
    assert not {0x9, 0xA, 0x61, 0x50000} & codes(bert["removed"])
    assert codes(bert["spaces"]) >= {0x9, 0xA, 0xA0, 0x3000} and 0x4E00 in codes(bert["chinese"])
    lower = dict(zip(bert["lower"][::2], bert["lower"][1::2], strict=True))
    assert lower["\u03a3"] == "\u03c3" and lower["\u0130"] == "i\u0307" and "a" not in lower
    order = order_tables()
    parts, pairs = (dict(zip(order[name][::2], order[name][1::2], strict=True))
                    for name in ("decompositions", "compositions"))
    assert pairs["\u1e69"] == "\u1e63\u0307" and pairs["\u00c5"] == "A\u030a" and not {"\u0958", "\u212b"} & set(pairs)
    assert all(len(pair) == 2 for pair in pairs.values())
    assert parts["\u1e69"] == "s\u0323\u0307" and not any(0xAC00 <= ord(c) < 0xD7A4 for c in parts)
    assert set(map(ord, "!-[`{\u00a1\u2019\u3001")) <= codes(bert["marks"]) and 0x20 in codes(bert["gaps"])
    assert codes(level["digits"]) >= {0x30, 0x39, 0xBD, 0x2160, 0x661} and 0x61 not in codes(level["digits"])
    assert codes(level["letters"]) >= {0x41, 0xAA, 0x4E00} and 0x85 in codes(level["spaces"])


@pytest.mark.parametrize("name", ["removed", "spaces", "chinese", "accents", "gaps", "marks"])
def test_ranges_ascend_and_do_not_touch(name: str) -> None:
    bounds = bert_tables()[name]
    assert all(b > a + 1 for a, b in zip(bounds[1::2], bounds[2::2], strict=False))
    assert all(last >= first for first, last in zip(bounds[::2], bounds[1::2], strict=True))


def test_ranks_order_marks_as_their_classes_do() -> None:
    """Ranks of all marks that Python knows, too: the library's Unicode may be older or newer than Python's."""
    ranks = {chr(code): int(rank) for rank, bounds in order_tables()["classes"].items() for code in codes(bounds)}
    known = {c: unicodedata.combining(c) for c in ranks if unicodedata.combining(c)}
    assert len(known) > 700
    for rank in set(ranks.values()):
        assert len({known[c] for c in known if ranks[c] == rank}) == 1, rank
    assert sorted(known, key=lambda c: (known[c], c)) == sorted(known, key=lambda c: (ranks[c], c))
