"""JSON from outside: one meaning, and no error but ValueError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secformer.mpc.strict_json import read_foreign, read_own

VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False,
                                                                                     allow_infinity=False),
                      lambda inner: st.lists(inner, max_size=3)
                      | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8)


@given(value=VALUES)
def test_what_json_writes_is_read_the_same(value: Any) -> None:
    text = json.dumps(value)
    assert read_own(text) == read_own(text.encode()) == read_foreign(text) == value


@pytest.mark.parametrize(("text", "said"), [
    ('{"a": 1, "a": 1}', "'a' stands twice"), ('[{"b": {"c": 1, "c": 2}}]', "'c' stands twice"),
    ("NaN", "NaN is not"), ("[-Infinity]", "-Infinity is not"), ("1e999", "too large"), ("[" * 100_000, "too deeply"),
    ('{"a":' * 100_000, "too deeply"), ("9" * 5000, "digits"), ("", "Expecting"), ("{", "Expecting"), ("1 2", "Extra"),
    (b"\xff", "utf-8"), ('{"a": 1}'.encode("utf-16"), "utf-8"), (b"\xef\xbb\xbf{}", "BOM"),
    ('"\\ud800"', "surrogates"), ('{"\\uDFFF": 1}', "surrogates"), ('"\ud800"', "surrogates"),
])
def test_what_could_mean_two_things_is_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_own(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "", b"\xff", "{", '["\\udc00"]'])
def test_a_bad_text_of_others_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        read_foreign(text)


def test_others_may_write_what_this_package_does_not() -> None:
    assert read_foreign('{"a": 1, "a": Infinity}') == {"a": float("inf")}
