"""Settings files: every key's bounds, unknown keys, templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from secformer.models.run.options import LONGEST
from secformer.mpc.backend import BACKENDS
from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tls import Identity
from secformer.roles.budgets import Budget, Budgets
from secformer.roles.settings import (
    LEVELS,
    ClientSettings,
    DealerSettings,
    PartySettings,
    load_client,
    load_dealer,
    load_party,
    template,
)

LOADERS: dict[type, Callable[[Path], Any]] = {
    PartySettings: load_party, DealerSettings: load_dealer, ClientSettings: load_client}
TLS = {"authority": "a.pem", "certificate": "c.pem", "key": "c.key", "revoked": "r.pem"}
NEEDED: dict[type, dict[str, Any]] = {
    PartySettings: {"rank": 1, "model": "m.safetensors", "state": "state", "clients": ("127.0.0.1", 1),
                    "link": ("::1", 2), "dealer": ("dealer.example", 65535)},
    DealerSettings: {"listen": ("0.0.0.0", 0), "state": "/elsewhere/state"},
    ClientSettings: {"party0": ("a", 1), "party1": ("b", 2), "model": "../model"},
}
TABLES = ("tls", "budgets", "browsers")
KEYS = [(cls, f) for cls in LOADERS for f in fields(cls) if f.name not in TABLES]
NOT_STRINGS = ["1", "true", "[]", "{}", "2026-01-01"]
ADDRESSES = ["host", "host:", ":80", "host:65536", "host:-1", "host:x", "host:8²", "[]:80", "a:1 "]
BAD: dict[str, list[str]] = {
    "whole": ["1.0", '"1"', "true", "[1]", "-1"],
    "seconds": ["0", "-1", "0.0", "nan", "inf", "-inf", "1e300", "[60]", '"5"', "true", "1" + "0" * 400,
                str(LONGEST + 1)],
    "flag": ["0", "1", '"true"'],
    "path": [*NOT_STRINGS, '""'],
    "choice": [*NOT_STRINGS, '""', '"NumPy"', '"Info"'],
    "address": [*NOT_STRINGS, '""', *(f'"{a}"' for a in ADDRESSES)],
    "address?": [*NOT_STRINGS, *(f'"{a}"' for a in ADDRESSES)],
}

SMALL = {"client_mb": {"max_body_mb": "1"}, "held_mb": {"max_body_mb": "1", "client_mb": "1"}}  # what must fit in


def text_of(cls: type, /, **changes: str) -> str:
    """A settings file with keys changed to TOML texts; "" leaves a key out."""
    lines = template(cls, NEEDED[cls], TLS).splitlines()
    kept = [line for line in lines if line.removeprefix("# ").split(" = ")[0] not in changes]
    return "\n".join([f"{name} = {value}" for name, value in changes.items() if value] + kept) + "\n"


def load(folder: Path, cls: type, /, **changes: str) -> Any:
    path = folder / "role.toml"
    path.write_text(text_of(cls, **changes), "utf-8")
    return LOADERS[cls](path)


@pytest.mark.parametrize("cls", LOADERS)
def test_a_template_loads_back_to_the_defaults(tmp_path: Path, cls: type) -> None:
    settings = load(tmp_path, cls)
    for f in fields(cls):
        given = NEEDED[cls].get(f.name, f.default)
        if f.name == "tls":
            given = Identity(tmp_path / "a.pem", tmp_path / "c.pem", tmp_path / "c.key", tmp_path / "r.pem")
        elif f.metadata["kind"] == "path":
            given = tmp_path / given
        assert getattr(settings, f.name) == given, f.name


@pytest.mark.parametrize("cls", LOADERS)
def test_the_commented_defaults_of_a_template_are_the_defaults(tmp_path: Path, cls: type) -> None:
    """What a template shows behind a # means the same with the # taken away."""
    text = template(cls, NEEDED[cls], TLS)
    names = [f.name for f in fields(cls) if f.name not in TABLES]
    lines = [line.removeprefix("# ") if line.removeprefix("# ").split(" = ")[0] in names else line
             for line in text.splitlines()]
    (tmp_path / "bare.toml").write_text("\n".join(lines), "utf-8")
    path = tmp_path / "role.toml"
    path.write_text(text, "utf-8")
    assert LOADERS[cls](tmp_path / "bare.toml") == LOADERS[cls](path)
    assert sum(line.split(" = ")[0] in names for line in lines) == len(names), "a template explains every key"
    for f in fields(cls):
        assert f.name in TABLES or f.metadata["about"] in text


@pytest.mark.parametrize(("cls", "f"), KEYS, ids=[f"{cls.__name__}.{f.name}" for cls, f in KEYS])
def test_every_key_has_bounds(tmp_path: Path, cls: type, f: Field[Any]) -> None:
    kind = f.metadata["kind"]
    bad = list(BAD[kind])
    if kind == "whole":
        least, beside = f.metadata["least"], SMALL.get(f.name, {})
        bad.append(str(least - 1))
        assert getattr(load(tmp_path, cls, **beside, **{f.name: str(least)}), f.name) == least
        if most := f.metadata.get("most"):
            bad.append(str(most + 1))
            assert getattr(load(tmp_path, cls, **{f.name: str(most)}), f.name) == most
    for value in bad:
        with pytest.raises(SettingsError) as caught:
            load(tmp_path, cls, **{f.name: value})
        assert f.name in str(caught.value) and "role.toml" in str(caught.value), (value, caught.value)


@pytest.mark.parametrize(("cls", "f"), [k for k in KEYS if k[1].default is MISSING],
                         ids=[f"{c.__name__}.{f.name}" for c, f in KEYS if f.default is MISSING])
def test_a_missing_key_is_named_and_explained(tmp_path: Path, cls: type, f: Field[Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, cls, **{f.name: ""})
    assert f"lacks the key {f.name!r}" in str(caught.value) and f.metadata["about"] in str(caught.value)


def test_values_of_every_kind_are_read(tmp_path: Path) -> None:
    for choice in BACKENDS:
        assert load(tmp_path, PartySettings, backend=f'"{choice}"').backend == choice
    for level in LEVELS:
        assert load(tmp_path, DealerSettings, log_level=f'"{level}"').log_level == level
    assert load(tmp_path, ClientSettings, truncation="true").truncation is True
    assert load(tmp_path, PartySettings, deadline="90").deadline == 90.0
    assert isinstance(load(tmp_path, PartySettings, deadline="90").deadline, float)
    assert load(tmp_path, PartySettings, metrics='""').metrics is None
    assert load(tmp_path, PartySettings, metrics='"[::1]:9"').metrics == ("::1", 9)
    assert load(tmp_path, PartySettings, queue="1").queue == 1


def test_the_wait_for_the_dealer_ends_before_the_link_does(tmp_path: Path) -> None:
    assert load(tmp_path, PartySettings, deadline="5", dealer_wait="4.9").dealer_wait == 4.9
    with pytest.raises(SettingsError, match="dealer_wait must be below deadline, got 5 and 5"):
        load(tmp_path, PartySettings, deadline="5", dealer_wait="5")


@pytest.mark.parametrize(("key", "hint"), [("rnak", "did you mean 'rank'?"), ("dead_line", "did you mean 'deadline'?"),
                                           ("zzz", "The keys are rank, model, state")])
def test_an_unknown_key_is_refused_with_a_hint(tmp_path: Path, key: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, PartySettings, **{key: "1"})
    assert f"unknown key {key!r}" in str(caught.value) and hint in str(caught.value)
    assert ("did you mean" in str(caught.value)) == ("did you mean" in hint)


@pytest.mark.parametrize("key", [f.name for f in fields(Identity)])
def test_the_tls_table_is_closed_too(tmp_path: Path, key: str) -> None:
    path = tmp_path / "role.toml"
    whole = text_of(DealerSettings)
    for bad in ("", f"{key} = 1\n", f'{key} = ""\n')[key == "revoked":]:  # the list may be left out
        path.write_text(whole.replace(f'{key} = "{TLS[key]}"\n', bad), "utf-8")
        with pytest.raises(SettingsError, match=rf"tls\.{key} must be the path of a PEM file"):
            load_dealer(path)
    path.write_text(whole.replace(f"\n{key} = ", f"\n{key}s = "), "utf-8")
    with pytest.raises(SettingsError, match=rf"unknown key tls\.'{key}s': did you mean '{key}'"):
        load_dealer(path)
    path.write_text("tls = 3\n" + whole.partition("[tls]")[0], "utf-8")
    with pytest.raises(SettingsError, match=r"\[tls\] must be a table with the keys authority, certificate, key"):
        load_dealer(path)


def test_paths_are_relative_to_the_file_and_absolute_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "etc" / "secformer"
    home.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # where the process runs does not count
    (home / "role.toml").write_text(text_of(PartySettings, state='"/var/state"', model='"../m.safetensors"'), "utf-8")
    settings = load_party(Path("etc/secformer/role.toml"))
    assert settings.state == Path("/var/state")
    assert settings.model == Path("etc/secformer/../m.safetensors")
    assert settings.store == Path("etc/secformer/store")
    assert settings.tls.key == Path("etc/secformer/c.key")


def test_files_that_cannot_be_read_are_settings_errors(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*secformer init"):
        load_dealer(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        load_dealer(tmp_path)
    for raw in (b"listen = ", b"listen = 'a'\nlisten = 'b'", b"\xff\xfe"):
        (tmp_path / "role.toml").write_bytes(raw)
        with pytest.raises(SettingsError, match="is not a TOML file"):
            load_dealer(tmp_path / "role.toml")


def test_texts_with_quotes_and_backslashes_survive_a_template(tmp_path: Path) -> None:
    odd = 'a "quoted" \\ name = ü'
    (tmp_path / "role.toml").write_text(template(DealerSettings, NEEDED[DealerSettings] | {"state": odd}, TLS), "utf-8")
    assert load_dealer(tmp_path / "role.toml").state == tmp_path / odd


MADE: dict[type, dict[str, Any]] = {  # as in Python, without a file
    PartySettings: {"rank": 1, "model": Path("m"), "state": Path("s"), "clients": ("a", 1), "link": ("b", 2),
                    "dealer": ("c", 3)},
    DealerSettings: {"listen": ("a", 0), "state": Path("s")},
    ClientSettings: {"party0": ("a", 1), "party1": ("b", 2), "model": Path("m")},
}
IDENTITY = Identity(Path("a.pem"), Path("c.pem"), Path("c.key"))
DURATIONS = [(cls, f.name) for cls, f in KEYS if f.metadata["kind"] == "seconds"]


def test_all_durations_are_here() -> None:
    assert sorted({name for _, name in DURATIONS}) == [
        "deadline", "dealer_wait", "half_deadline", "header_deadline", "request_deadline", "session_age",
        "session_idle"]
    assert {cls for cls, _ in DURATIONS} == set(LOADERS)


@pytest.mark.parametrize(("cls", "name"), DURATIONS, ids=[f"{cls.__name__}.{name}" for cls, name in DURATIONS])
def test_durations_are_checked_in_python_too(cls: type, name: str) -> None:
    """`connect` takes settings that no file was read for."""
    good = 20 if name == "dealer_wait" else 40  # which must be below `deadline`
    assert getattr(cls(**MADE[cls], tls=IDENTITY, **{name: good}), name) == good
    for bad in (float("inf"), float("nan"), 1e300, 10**400, True, 0, -1.0, "60", None, LONGEST + 1):
        with pytest.raises(SettingsError) as caught:
            cls(**MADE[cls], tls=IDENTITY, **{name: bad})
        assert str(caught.value) == (f"{name} must be a positive number of seconds, at most 31536000 (a year), got "
                                     f"{bad!r}")


@pytest.mark.parametrize(("cls", "changes", "says"), [
    (PartySettings, {"rank": 2}, "rank must be a whole number from 0 to 1, got 2"),
    (PartySettings, {"rank": True}, "rank"), (PartySettings, {"queue": 0}, "from 1 to 16384, got 0"),
    (PartySettings, {"client_mb": 1025}, "client_mb at most half of held_mb.*got 256, 1025 and 2048 MB"),
    (PartySettings, {"max_body_mb": 513}, "max_body_mb must be at most client_mb.*got 513, 512 and 2048 MB"),
    (DealerSettings, {"backend": "NumPy"}, "one of auto, numpy"), (DealerSettings, {"threads": 1.5}, "threads"),
    (ClientSettings, {"truncation": 1}, "truncation must be true or false, got 1"),
    (ClientSettings, {"batch_tokens": 0}, "batch_tokens"), (ClientSettings, {"in_flight": 0}, "from 1 to 8, got 0"),
    (PartySettings, {"in_flight": 9}, "in_flight must be a whole number from 1 to 8, got 9"),
])
def test_other_values_are_checked_in_python_too(cls: type, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        cls(**MADE[cls] | changes, tls=IDENTITY)


def test_budgets_are_read_and_closed_too(tmp_path: Path) -> None:
    path = tmp_path / "role.toml"
    whole = text_of(PartySettings).replace("[budgets]\n", "")
    assert load(tmp_path, PartySettings).budgets == Budgets()

    def budgets(text: str) -> Budgets:
        path.write_text(whole + text, "utf-8")
        return load_party(path).budgets

    read = budgets("[budgets]\nrequests_per_day = 7\n[budgets.clients.alice]\ntexts_per_day = 9\n"
                   "[budgets.clients.bob]\nrequests_per_day = 0\n")
    assert (read.of("alice"), read.of("bob"), read.of("carol")) == (Budget(7, 9), Budget(0), Budget(7))
    for bad, said in (("[budgets]\nper_day = 1", "budgets must be a table with the keys requests_per_day, texts"),
                      ("[budgets]\nrequests_per_day = -1", "requests_per_day must be a whole number of at least"),
                      ("[budgets]\ntexts_per_day = true", "texts_per_day must be a whole number of at least 0, got T"),
                      ("[budgets]\ntexts_per_day = 1.5", "got 1.5"), ('[budgets]\ntexts_per_day = "1"', "got '1'"),
                      ("[budgets]\nclients = 3", "budgets.clients must be a table of tables"),
                      ("[budgets.clients]\nalice = 3", "budgets.clients.alice must be a table")):
        with pytest.raises(SettingsError, match=f"role.toml: .*{said}"):
            budgets(bad)
    with pytest.raises(SettingsError, match=r"\[budgets\] must be a table"):
        path.write_text("budgets = 3\n" + whole, "utf-8")
        load_party(path)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "{b=" * 5000, "rank = " + "9" * 5000, "rank = \xff"])
def test_toml_that_python_cannot_hold_is_a_settings_error(tmp_path: Path, text: str) -> None:
    """Found by fuzzing: deep nesting, and numbers of thousands of digits."""
    (tmp_path / "x.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match="is not a TOML file"):
        load_party(tmp_path / "x.toml")
