"""W3C's header `traceparent`, read strictly: what is not as it must be names no trace."""

from __future__ import annotations

import pytest

from secformer.roles.traces import fields_of, header_of, is_trace, trace_in

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("header", [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-ff",
                                    f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be"])
def test_good_headers(header: str) -> None:
    assert trace_in([header]) == TRACE


@pytest.mark.parametrize("header", [
    "", "00", TRACE, f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-1", f"00-{TRACE}-{PARENT}-001",
    f"00-{TRACE}-{PARENT}-01-", f"00-{TRACE}-{PARENT}-01-more", f"cc-{TRACE}-{PARENT}-01.more",
    f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE[1:]}-{PARENT}-01",
    f"00-{TRACE}0-{PARENT}-01", f"00-{TRACE.upper()}-{PARENT}-01", f" 00-{TRACE}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}-01\n", f"00-{TRACE}-{PARENT}-01 ", f"0g-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-0g",
    f"00_{TRACE}_{PARENT}_01", f"00-{'٣' * 32}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-" + "x" * 500])
def test_bad_headers(header: str) -> None:
    assert trace_in([header]) == ""


def test_one_header_and_no_other() -> None:
    good = f"00-{TRACE}-{PARENT}-01"
    assert trace_in([]) == trace_in([good, good]) == ""


def test_what_is_sent_is_read() -> None:
    assert header_of(TRACE, PARENT + "ab" * 8) == f"00-{TRACE}-{PARENT}-00"
    assert trace_in([header_of(TRACE, PARENT)]) == TRACE and is_trace(TRACE)
    assert not any(map(is_trace, ("", "0" * 32, TRACE[1:], TRACE + "\n", TRACE.upper())))
    assert fields_of(TRACE) == {"trace": TRACE} and fields_of("") == {}
