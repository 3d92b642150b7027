"""Texts of many scripts, made of a seed: what tokenizers must cut alike, however odd."""

from __future__ import annotations

import random

RANGES = {
    "latin": [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)], "greek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "cyrillic": [(0x400, 0x52F)], "armenian": [(0x531, 0x58F)], "hebrew": [(0x591, 0x5F4)],
    "arabic": [(0x600, 0x6FF), (0xFB50, 0xFDFF)], "devanagari": [(0x900, 0x97F)], "bengali": [(0x980, 0x9FE)],
    "tamil": [(0xB82, 0xBFA)], "thai": [(0xE01, 0xE5B)], "tibetan": [(0xF00, 0xFDA)], "georgian": [(0x10A0, 0x10FF)],
    "hangul": [(0xAC00, 0xD7A3), (0x1100, 0x11FF)], "kana": [(0x3041, 0x30FF)], "cherokee": [(0x13A0, 0x13FD)],
    "han": [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2B740, 0x2B81F), (0xF900, 0xFAD9)],
    "marks": [(0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20F0)],
    "controls": [(0, 0x1F), (0x7F, 0x9F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2066, 0x206F), (0xFFF9, 0xFFFD)],
    "spaces": [(0x9, 0xD), (0x20, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x2000, 0x200A), (0x2028, 0x2029),
               (0x3000, 0x3000)],
    "punctuation": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xBF), (0x2010, 0x205E),
                    (0x3001, 0x303F)],
    "full width": [(0xFF01, 0xFFEE)], "numbers": [(0x30, 0x39), (0xB2, 0xB9), (0x660, 0x669), (0x2150, 0x218B)],
    "emoji": [(0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF), (0x2600, 0x27BF), (0x1F1E6, 0x1F1FF)],
    "letters of mathematics": [(0x1D400, 0x1D7FF)], "music": [(0x1D100, 0x1D1FF)], "private": [(0xE000, 0xE0FF)],
    "anything": [(0, 0xD7FF), (0xE000, 0x10FFFF)],
}
FIXED = (
    "", " ", "\n", "\t\r\n", "a", "\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 \u03a3\u0391\u03a3 \u03a3",
    "\u0130stanbul \u0131I", "\u01c5 \u01c6 \u01c4 \ufb01 \xdf \u1e9e \u0149",
    "e\u0301 \xe9 e\u0323\u0301 e\u0301\u0323", "\u1100\u1161\u11a8 \uac01",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 \u2764\ufe0f",
    "\ufeffa", "a\xadb", "abc\u200bdef\u200d",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05b2\u05dc\u05b5\u05d9\u05db\u05b6\u05dd",
    "\u0627\u0644\u0633\u064e\u0651\u0644\u064e\u0627\u0645\u064f",
    "\u0639\u064e\u0644\u064e\u064a\u0652\u0643\u064f\u0645",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\U00020000\U0002a700\U0002b740\U0002b820",
    "\uff21\uff22\uff23\uff11\uff12\uff13", "don't we'll I'VE they'\u017f \u212aelvin", "x" * 101, "y" * 100,
    "z" * 2500, "!" * 300, "1234567 12 1 \u0663\u0664\u0665 \xbd \u216b", "  two  spaces   three\n\n\nlines \n end ",
    "[CLS] [SEP] [MASK] [mask] [PAD][UNK]", "<|im_start|>user\nhi<|im_end|> <|endoftext|>", "<s> </s> <mask> <pad>",
    "\u0958 \u0340 \u0344 \u2126 \u212b", "a\u0327\u0301\u0334b", "\ud7a3\uac00", "\U0001d15e\U0001d165\U0001d16d",
    "\u302e\u302f\u0301", "a\x00b\ufffdc", "\u180e\u2060\u061c", "\u1e9b\u0323",
    "http://user@example.org:80/a_b?c=d&e#f", "C++ / C# -- \u20ac5,00 \xa33 $2^10", "\u2028\u2029x",
)
WORDS = ("the", "film", "was", "unbelievable", "Straße", "naïve", "coöperate", "Größe", "façade", "Ελλάδα", "Привет",
         "мир", "can't", "It's", "3.14", "U.S.A.", "e-mail", "HELLO", "ok", "I", "x", "tokenization", "antidis")


def texts(count: int, seed: int = 7) -> list[str]:
    """So many texts, the fixed ones first."""
    draw = random.Random(seed)
    names = sorted(RANGES)
    found = list(FIXED)

    def word(name: str) -> str:
        if draw.random() < 0.2:
            return draw.choice(WORDS)
        low, high = draw.choice(RANGES[name])
        drawn = (chr(draw.randint(low, high)) for _ in range(draw.choice((1, 1, 2, 3, 5, 8, 13))))
        return "".join(c for c in drawn if not 0xD800 <= ord(c) < 0xE000)

    while len(found) < count:
        own = draw.sample(names, draw.choice((1, 2, 3, 5)))
        separators = draw.choice(([" "], ["", " "], [""], [" ", "  ", "\n", "\u3000", "-", "\u200d"]))
        parts = [word(draw.choice(own)) + draw.choice(separators) for _ in range(draw.randint(1, 14))]
        found.append("".join(parts))
    return found[:count]
