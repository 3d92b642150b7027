"""What a page consists of, where it may go, and its policy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from secformer.mpc.errors import InputError, SettingsError
from secformer.page.files import FACTS, INDEX, Page, origin, write

PARTIES = ("https://one.example:8444", "https://two.example/")
FORBIDDEN = (r"\beval\(|new Function|innerHTML|outerHTML|document\.write|localStorage|sessionStorage|indexedDB"
             r"|document\.cookie")
KNOWN = ("http://www.w3.org/", "https://one.example", "https://two.example")
MODEL = {"model.json": b"{}", "tokenizer.json": b"{}"}


def test_the_page_is_whole_and_asks_nobody_else() -> None:
    found = Page(PARTIES).files(MODEL)
    assert {INDEX, FACTS, "style.css", "icon.svg", "app/main.js", "core/secformer.js", "model/model.json"} <= set(found)
    assert json.loads(found[FACTS]) == {"parties": ["https://one.example:8444", "https://two.example"],
                                        "tokens": "tokens.json"}
    known = ("http://www.w3.org/", "https://one.example", "https://two.example")
    for name, content in found.items():
        text = content.decode("utf-8")
        outside = {url for url in re.findall(r"https?://[^\s\"'`)]+", text) if not url.startswith(known)}
        assert not outside or name.startswith("core/"), f"{name} names {outside}"
        assert "{{" not in text, name
        if name.endswith((".js", ".html")):
            assert not re.search(FORBIDDEN, text), name
    index = found[INDEX].decode()
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", index), "nothing inline"


def test_imports_of_modules_are_there() -> None:
    """No bundler looks for them: a browser would."""
    found = Page(PARTIES).files(MODEL)
    for name in (name for name in found if name.endswith(".js")):
        for path in re.findall(r"^(?:import|export) .*?from \"([^\"]+)\"|^import \"([^\"]+)\"", found[name].decode(),
                               re.MULTILINE | re.DOTALL):
            wanted = Path(name).parent.joinpath(next(filter(None, path)))
            parts: list[str] = []
            for part in wanted.parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            assert "/".join(parts) in found, f"{name} imports {wanted}"


def test_names_in_the_index_are_those_of_the_modules() -> None:
    found = Page(PARTIES).files(MODEL)
    index = found[INDEX].decode()
    there = set(re.findall(r'\sid="([^"]+)"', index))
    asked = {name for path, content in found.items() if path.startswith("app/")
             for name in re.findall(r'byId\("([^"]+)"\)', content.decode())}
    referred = {name for names in re.findall(r'\s(?:for|aria-labelledby|aria-describedby)="([^"]+)"', index)
                for name in names.split()}
    assert asked and asked | referred <= there


def test_the_policy_allows_what_is_needed_and_no_more() -> None:
    page = Page(PARTIES)
    allowed = dict(each.split(" ", 1) for each in page.policy.split("; "))
    assert allowed["default-src"] == "'none'" and allowed["script-src"] == allowed["style-src"] == "'self'"
    assert allowed["connect-src"] == "'self' https://one.example:8444 https://two.example"
    assert allowed["base-uri"] == allowed["form-action"] == "'none'"
    assert "unsafe" not in page.policy and "*" not in page.policy
    assert page.files(MODEL)[INDEX].count(page.policy.encode()) == 1
    assert page.headers["Content-Security-Policy"] == f"{page.policy}; frame-ancestors 'none'"
    assert " https://two.example https://login.example;" in Page(PARTIES, "https://login.example/tokens?a=b").policy


@pytest.mark.parametrize("url", ["http://one.example", "one.example:8444", "https://", "https://one.example/path", "",
                                 "https://one.example?x", "https://user@one.example", "https://one.example:99999",
                                 "https://one.example; script-src *", "https://one example", "https://[::1"])
def test_parties_are_origins(url: str) -> None:
    with pytest.raises(InputError, match=r"the address of party 1 for browsers must be https://host"):
        Page((PARTIES[0], url))


def test_origins_are_written_as_browsers_do() -> None:
    assert origin("https://One.Example:443/") == "https://one.example"
    assert origin("https://[::1]:8444") == "https://[::1]:8444"


def test_what_would_let_somebody_read_the_texts_is_refused() -> None:
    with pytest.raises(InputError, match=r"both parties are at https://one.example:8444; give the address of each"):
        Page((PARTIES[0], PARTIES[0] + "/"))
    with pytest.raises(InputError, match="the address of the tokens for browsers must be https"):
        Page(PARTIES, "http://login.example/tokens")


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    found = Page(PARTIES).files(MODEL)
    write(tmp_path / "new" / "site", found)
    assert (tmp_path / "new/site/app/main.js").read_bytes() == found["app/main.js"]
    with pytest.raises(SettingsError, match=r"site is not empty; give a new folder, or --force"):
        write(tmp_path / "new" / "site", found)
    write(tmp_path / "new" / "site", found | {FACTS: b"{}"}, force=True)
    assert (tmp_path / "new/site" / FACTS).read_bytes() == b"{}"
