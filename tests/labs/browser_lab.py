"""A real Chromium without a window, and pages in it that tell everything that went wrong."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

WAIT = 120_000  # milliseconds: shared machines are slow
PHONE = {"width": 360, "height": 740}
WIDE = {"width": 1100, "height": 900}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
SHOTS = "SECFORMER_SCREENSHOTS"  # a folder that keeps the pictures; without it, they are in pytest's own


def chromium() -> str:
    """The browser of this machine. Skips the test where there is none."""
    pytest.importorskip("playwright", reason="the tests of the page in a browser need the extra `test`")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here")
    return found


@contextmanager
def playing() -> Iterator[Any]:
    """What starts browsers: one for each process of tests."""
    chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        yield play


@contextmanager
def browser(play: Any, options: list[str]) -> Iterator[Any]:
    """A browser with a profile of its own. `options`: further ones."""
    opened = play.chromium.launch(executable_path=chromium(), args=[*QUIET, *options])
    try:
        yield opened
    finally:
        opened.close()


def shots(otherwise: Path) -> Path:
    """Where pictures go."""
    folder = Path(os.environ.get(SHOTS) or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Visit:
    """A person at a page. What the page says on its console, and what it asks for, is kept.

    sent  the body that each party was sent last, by its origin
    """

    def __init__(self, chrome: Any, url: str, *, viewport: dict[str, int] | None = None, **context: Any):
        self._context = chrome.new_context(viewport=viewport or WIDE, **context)
        self.page = page = self._context.new_page()
        page.set_default_timeout(WAIT)
        self.url, self.problems, self.asked = url, [], []
        self.sent: dict[str, bytes] = {}
        page.on("console", lambda message: self.problems.append(message.text) if message.type in ("error", "warning")
                else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._note)

    def _note(self, request: Any) -> None:
        self.asked.append(request.url)
        if request.method == "POST":
            self.sent[origin(request.url)] = request.post_data_buffer or b""

    def open(self) -> Visit:
        """Waits until the page is ready."""
        self.page.goto(self.url)
        self.page.wait_for_selector("#form:not([hidden]), #broken:not([hidden])")
        assert self.page.is_visible("#form"), self.page.inner_text("#broken")
        return self

    def ask(self, text: str) -> str:
        """Types a text and asks. The answer's text, or that of the problem, once it is there."""
        self.page.fill("#text", text)
        self.page.click("#ask")
        return self.answered()

    def answered(self) -> str:
        self.page.wait_for_selector("#answered:not([hidden])")
        self.page.wait_for_selector("#ask:not([data-running])")
        return str(self.page.inner_text("#answer"))

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def figures(self, selector: str) -> list[float]:
        """The numbers in the texts of elements."""
        return [float(number) for text in self.page.locator(selector).all_inner_texts()
                for number in re.findall(r"-?\d+\.\d+", text)]

    def end(self, *expected: str) -> None:
        """Closes it. Nothing but the `expected` may have gone wrong (parts of what the console says)."""
        self._context.close()
        odd = [problem for problem in self.problems if not any(part in problem for part in expected)]
        assert not odd, odd
        unseen = [part for part in expected if not any(part in problem for problem in self.problems)]
        assert not unseen, f"{unseen} did not come; {self.problems}"


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
