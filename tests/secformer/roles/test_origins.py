"""Origins of pages, and the table of settings that lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from links_lab import identity

from secformer.mpc.errors import SettingsError
from secformer.roles.certificates import init
from secformer.roles.origins import LONGEST_TOKEN, MOST_ORIGINS, Asked, Browsers, require_origin
from secformer.roles.settings import load_party

HERE, PAGE = ("127.0.0.1", 0), ["https://page.example"]


@pytest.mark.parametrize("origin", ["https://page.example", "https://page.example:8443", "https://a-b.c_d.e",
                                    "https://10.0.0.1:81", "https://[2001:db8::1]", "http://localhost",
                                    "http://localhost:8000", "http://127.0.0.1:65535", "http://[::1]:5"])
def test_origins_as_browsers_send_them(origin: str) -> None:
    require_origin(origin)


@pytest.mark.parametrize("origin", [
    "", "*", "null", "page.example", "https://", "https://*", "https://*.example", "https://Page.example",
    "HTTPS://page.example", "https://page.example/", "https://page.example/a", "https://page.example:443",
    "https://page.example:0", "https://page.example:65536", "https://page.example:", "https://page.example:08",
    "https://page.example.", "https://.example", "https://user@page.example", "https://page.example?x", "ftp://a",
    "https://page.example\n", " https://page.example", "https://pägé.example", "https://[::1", "https://[::x]",
    "https://[0:0::1]", "file://", "https://a b", "http://localhost:80",
])
def test_what_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match="an origin is https://host or https://host:port as browsers send it"):
        require_origin(origin)


@pytest.mark.parametrize("origin", ["http://page.example", "http://10.0.0.1:8000", "http://localhost.example"])
def test_plain_http_is_for_the_browsers_own_machine(origin: str) -> None:
    with pytest.raises(SettingsError, match="may be changed on its way to a browser"):
        require_origin(origin)


def test_an_allowed_origin_is_equal_byte_for_byte() -> None:
    origins = ["https://a.example", "http://localhost:8000"]
    for given, allowed in ((b"https://a.example", True), (b"http://localhost:8000", True), (b"http://localhost", False),
                           (b"https://A.example", False), (b"https://a.example ", False), (b"\xff", False),
                           (b"", False)):
        assert Asked("GET", [(b"origin", given)]).allowed(origins) == allowed
    assert Asked("GET", []).allowed(origins)
    assert not Asked("GET", [(b"origin", b"https://a.example")] * 2).allowed(origins)


def test_a_preflight_is_what_browsers_send_as_one() -> None:
    origin, method = (b"origin", b"https://a.example"), (b"access-control-request-method", b"POST")
    assert Asked("OPTIONS", [origin, method]).preflight
    for other, headers in (("OPTIONS", [origin]), ("OPTIONS", [method]), ("GET", [origin, method])):
        assert not Asked(other, headers).preflight


# ---- settings --------------------------------------------------------------------------------------------------------


def loaded(folder: Path, table: str) -> Any:
    if not (folder / "roles").exists():
        init(folder / "roles")
    path = folder / "roles" / "party0" / "party0.toml"
    (path.parent / "with.toml").write_text(path.read_text("utf-8") + "\n" + table, "utf-8")
    return load_party(path.parent / "with.toml").browsers


def test_the_table_is_off_unless_it_is_there(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") is None
    table = '[browsers]\naddress = "127.0.0.1:5"\norigins = ["https://page.example"]\n'
    assert loaded(tmp_path, table) == Browsers(("127.0.0.1", 5), PAGE, LONGEST_TOKEN)
    more = table + 'token_seconds = 60\ncertificate = "web.pem"\nkey = "/k/web.key"\n'
    found, folder = loaded(tmp_path, more), tmp_path / "roles" / "party0"
    assert (found.token_seconds, found.certificate, found.key) == (60, folder / "web.pem", Path("/k/web.key"))
    own = found.identity(identity(tmp_path / "roles", "party0"))
    assert (own.authority, own.certificate, own.revoked) == (folder / "authority.pem", folder / "web.pem", None)


@pytest.mark.parametrize(("table", "told"), [
    ("browsers = 5", r"\[browsers\] must be a table"),
    ("[browsers]", r"\[browsers\] must be a table with the key address"),
    ('[browsers]\naddress = "a:1"', "must name 1 to"),
    ('[browsers]\naddress = "a"\norigins = ["https://a"]', "host:port"),
    ('[browsers]\naddress = "a:1"\norigins = "https://a"', "must be a list of origins"),
    ('[browsers]\naddress = "a:1"\norigins = [5]', "must be strings, got 5"),
    ('[browsers]\naddress = 5\norigins = ["https://a"]', "must be strings, got 5"),
    ('[browsers]\naddress = "a:1"\norigins = ["*"]', r"without \*; got '\*'"),
    ('[browsers]\naddress = "a:1"\norigins = ["https://a"]\norigin = "b"', "must be a table"),
    *((f'[browsers]\naddress = "a:1"\norigins = ["https://a"]\ntoken_seconds = {bad}', "browsers.token_seconds must be")
      for bad in ("0", "-1", '"5"', "true", "inf", "nan")),
    *((f'[browsers]\naddress = "a:1"\norigins = ["https://a"]\n{one} = "x"', "belong together")
      for one in ("certificate", "key")),
])
def test_tables_that_mean_nothing_are_refused(tmp_path: Path, table: str, told: str) -> None:
    if not table.startswith("["):
        init(tmp_path / "roles")
        path = tmp_path / "roles" / "party0" / "party0.toml"
        path.write_text(table + "\n" + path.read_text("utf-8"), "utf-8")
        with pytest.raises(SettingsError, match=told):
            load_party(path)
        return
    with pytest.raises(SettingsError, match=rf"with.toml: .*{told}"):
        loaded(tmp_path, table)


def test_many_origins_are_too_many() -> None:
    Browsers(HERE, PAGE * MOST_ORIGINS)
    with pytest.raises(SettingsError, match="must name 1 to 64 origins of pages, got 65"):
        Browsers(HERE, PAGE * (MOST_ORIGINS + 1))


def test_init_opens_the_port_at_both_parties(tmp_path: Path) -> None:
    init(tmp_path / "roles", hosts={"party0": "10.0.0.1"}, ports={"browsers1": 7}, origins=PAGE)
    found = [load_party(tmp_path / "roles" / role / f"{role}.toml").browsers for role in ("party0", "party1")]
    assert found == [Browsers(("0.0.0.0", 8444), PAGE), Browsers(("127.0.0.1", 7), PAGE)]
    with pytest.raises(SettingsError, match="as browsers send it"):
        init(tmp_path / "other", origins=["*"])
    assert not (tmp_path / "other").exists()
