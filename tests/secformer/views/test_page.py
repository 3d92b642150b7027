"""The page of a comparison: one file that loads nothing, with every text escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from comparison_lab import TEXTS

from secformer.models.run.comparison import Comparison, Row
from secformer.views.page import page

VOID = {"meta", "br", "link", "img", "line", "rect", "circle"}


class Reader(HTMLParser):
    """Collects what a page would load, and checks that its elements close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(v) for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "xlink:href")]
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_page_is_self_contained(compared: Comparison) -> None:
    text = page(compared, TEXTS)
    reader = read(text)
    assert not reader.addresses and not {"script", "link", "img", "iframe"} & reader.tags
    assert not re.search(r"https?:|//|url\(|@import", text)
    assert {"svg", "table"} <= reader.tags and text.count("<svg") == 6
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert "<b>my</b>" not in text and "&lt;b&gt;my&lt;/b&gt;" in text and "brok&lt;en" in text
    for word in ("faithful *", "secformer", "did not run", "nothing below 0", "positive", "negative"):
        assert word in text


def test_page_where_nothing_ran(compared: Comparison) -> None:
    text = page(replace(compared, rows=compared.rows[2:]), TEXTS)
    assert "did not run" in text and "<svg" not in read(text).tags and "Answers" in text


def test_page_of_an_exact_answer(compared: Comparison) -> None:
    """An error of 0 has a place on the logarithmic axis."""
    rows: tuple[Row, ...] = (replace(compared.rows[0], error=0.0), replace(compared.rows[1], error=np.pi))
    read(page(replace(compared, rows=rows), TEXTS))
