"""Texts that are not valid Unicode are refused with their number and place, wherever they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint

from secformer import plain_bert, secure_bert
from secformer.models.data.tokenizer import text_list
from secformer.models.data.unicode import require_unicode, undecodable
from secformer.models.families.folder import ModelFolder
from secformer.models.ranges.profile import measure
from secformer.models.run.check import check
from secformer.mpc.errors import InputError

BAD: list[tuple[Any, str]] = [
    ("a\ud800b", r"text 0 is not valid Unicode: character 1 .* is U\+D800"),
    (["fine", "ü\udfff"], r"text 1 is not valid Unicode: character 1 .* is U\+DFFF"),
    (["x", "caf\udce9"], r"text 1 is not valid UTF-8: character 3 .* the byte 0xE9, .* convert the text to UTF-8"),
    ([("a", "b"), ("c", "\udc80")], r"text 1, the second of its pair, is not valid UTF-8: character 0 .* 0x80"),
    ([["\ud83d", "b"]], r"text 0, the first of its pair, is not valid Unicode: character 0 .*U\+D83D"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(("texts", "says"), BAD, ids=[repr(texts) for texts, _ in BAD])
def test_the_error_says_which_text_and_where(texts: Any, says: str, folder: Path) -> None:
    for call in (text_list, lambda t: secure_bert(folder, t, backend="numpy"), lambda t: plain_bert(folder, t),
                 lambda t: check(folder, t), lambda t: measure(ModelFolder(folder), t)):
        with pytest.raises(InputError, match=says):
            call(texts)


def test_whole_pairs_of_surrogates_are_characters() -> None:
    for text in ("", "\0", "😀", "\U0010ffff", "\ufffd\ufeff", "e\u0301"):
        require_unicode(text, "it")
        assert text_list(text) == [text]


def test_bytes_are_told_by_line() -> None:
    for data, says in ((b"\xff", "line 1 has the byte 0xFF at byte 0"), (b"a\nbc\xe9\n", "line 2 has the byte 0xE9 at "
                                                                                         "byte 2")):
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            assert f"it is not UTF-8 text: {says}" in str(undecodable(error, "it"))
