"""What notes say is taken literally: nothing that Python would also read as a number or as bytes."""

from __future__ import annotations

from typing import Any

import pytest

from secformer.mpc.net.notes import WHOLE, decimal, hexadecimal, text, whole


def test_what_is_well_formed() -> None:
    assert whole(0) == 0 and whole(WHOLE - 1) == WHOLE - 1 and whole(-1, -1, 3) == -1
    assert text("") == "" and decimal("012") == 12
    assert hexadecimal("00ff", 2) == b"\x00\xff" and hexadecimal("", 0) == b""


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, WHOLE, [1], 10**400])
def test_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="a whole number from 0 to"):
        whole(value)


@pytest.mark.parametrize("value", ["0 ff", " 00ff", "00ff\n", "00FF", "0x00", "00f", "00ff00", "\u0660\u0661ff", 5,
                                   None, b"00ff"])
def test_no_two_bytes(value: Any) -> None:
    with pytest.raises(ValueError, match="2 bytes are needed as 4 digits"):
        hexadecimal(value, 2)


def test_a_secret_is_not_quoted() -> None:
    with pytest.raises(ValueError) as caught:
        hexadecimal("ab" * 31, 32)
    assert "abab" not in str(caught.value)


@pytest.mark.parametrize("value", ["", " 1", "1 ", "1_0", "+1", "-1", "\u0661", "1\n", "9" * 20, "9" * 5000])
def test_no_digits(value: str) -> None:
    with pytest.raises(ValueError, match="needed, got"):
        decimal(value)


@pytest.mark.parametrize("value", [1, None, ["a"]])
def test_no_string(value: Any) -> None:
    with pytest.raises(ValueError, match="a string is needed"):
        text(value)
