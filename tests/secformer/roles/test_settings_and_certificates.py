"""Settings files: every key's bounds, unknown keys, templates. Certificates: what they say, where keys lie, what is
refused."""

from __future__ import annotations

import json
import shutil
import ssl
import stat
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secformer.cli import main
from secformer.mpc.backend import BACKENDS
from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tls import ROLES, Identity, client_context, host_name, server_context
from secformer.roles import certificates
from secformer.roles.certificates import PORTS, init, issue
from secformer.roles.settings import (
    LEVELS,
    LONGEST,
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
TLS = {"authority": "a.pem", "certificate": "c.pem", "key": "c.key"}
NEEDED: dict[type, dict[str, Any]] = {
    PartySettings: {"rank": 1, "model": "m.safetensors", "state": "state", "clients": ("127.0.0.1", 1),
                    "link": ("::1", 2), "dealer": ("dealer.example", 65535)},
    DealerSettings: {"listen": ("0.0.0.0", 0), "state": "/elsewhere/state"},
    ClientSettings: {"party0": ("a", 1), "party1": ("b", 2), "model": "../model"},
}
KEYS = [(cls, f) for cls in LOADERS for f in fields(cls) if f.name != "tls"]
NOT_STRINGS = ["1", "true", "[]", "{}", "2026-01-01"]
ADDRESSES = ["host", "host:", ":80", "host:65536", "host:-1", "host:x", "host:8²", "[]:80", "a:1 "]
BAD: dict[str, list[str]] = {
    "whole": ["1.0", '"1"', "true", "[1]", "-1"],
    "seconds": ["0", "-1", "0.0", "nan", "inf", '"5"', "true", "1" + "0" * 400, str(LONGEST + 1)],
    "flag": ["0", "1", '"true"'],
    "path": [*NOT_STRINGS, '""'],
    "choice": [*NOT_STRINGS, '""', '"NumPy"', '"Info"'],
    "address": [*NOT_STRINGS, '""', *(f'"{a}"' for a in ADDRESSES)],
    "address?": [*NOT_STRINGS, *(f'"{a}"' for a in ADDRESSES)],
}


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
            given = Identity(tmp_path / "a.pem", tmp_path / "c.pem", tmp_path / "c.key")
        elif f.metadata["kind"] == "path":
            given = tmp_path / given
        assert getattr(settings, f.name) == given, f.name


@pytest.mark.parametrize("cls", LOADERS)
def test_the_commented_defaults_of_a_template_are_the_defaults(tmp_path: Path, cls: type) -> None:
    """What a template shows behind a # means the same with the # taken away."""
    text = template(cls, NEEDED[cls], TLS)
    names = [f.name for f in fields(cls) if f.name != "tls"]
    lines = [line.removeprefix("# ") if line.removeprefix("# ").split(" = ")[0] in names else line
             for line in text.splitlines()]
    (tmp_path / "bare.toml").write_text("\n".join(lines), "utf-8")
    path = tmp_path / "role.toml"
    path.write_text(text, "utf-8")
    assert LOADERS[cls](tmp_path / "bare.toml") == LOADERS[cls](path)
    assert sum(line.split(" = ")[0] in names for line in lines) == len(names), "a template explains every key"
    for f in fields(cls):
        assert f.name == "tls" or f.metadata["about"] in text


@pytest.mark.parametrize(("cls", "f"), KEYS, ids=[f"{cls.__name__}.{f.name}" for cls, f in KEYS])
def test_every_key_has_bounds(tmp_path: Path, cls: type, f: Field[Any]) -> None:
    kind = f.metadata["kind"]
    bad = list(BAD[kind])
    if kind == "whole":
        least = f.metadata["least"]
        bad.append(str(least - 1))
        assert getattr(load(tmp_path, cls, **{f.name: str(least)}), f.name) == least
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
    for bad in ("", f"{key} = 1\n", f'{key} = ""\n'):
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


# ---- certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "certs"
    init(folder, hosts={"party0": "10.0.0.1", "dealer": "10.0.0.3"}, ports={"link": 7001}, parties={"queue": 7})
    return folder


@pytest.fixture(scope="module")
def authority(made: Path) -> Path:
    """For tests that issue more."""
    return made


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize("role", ROLES)
def test_a_certificate_says_one_role_and_its_authority_signed_it(made: Path, role: str) -> None:
    mine, signer = certificate(made / role / f"{role}.pem"), certificate(made / "authority" / "authority.pem")
    names = mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host_name(role)] and len(list(names)) == 1
    mine.verify_directly_issued_by(signer)
    assert mine.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == role
    usage = set(mine.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) == (role != "client"), "a client's serves nobody"
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usage
    basic = mine.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical and not basic.value.ca, "a role's key can sign no other certificate"
    assert (made / role / "authority.pem").read_bytes() == (made / "authority" / "authority.pem").read_bytes()


@pytest.mark.parametrize("role", ROLES)
def test_certificate_and_key_fit_and_contexts_take_them(made: Path, role: str) -> None:
    key = load_pem_private_key((made / role / f"{role}.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    assert certificate(made / role / f"{role}.pem").public_key() == key.public_key()
    settings = {"party0": load_party, "party1": load_party, "dealer": load_dealer, "client": load_client}[role](
        made / role / f"{role}.toml")
    for context in (client_context(settings.tls), server_context(settings.tls)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_keys_and_folders_are_their_owners_alone(made: Path) -> None:
    keys = sorted(made.rglob("*.key"))
    assert [key.stem for key in keys] == ["authority", "client", "dealer", "party0", "party1"]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in [made, *made.iterdir()]} == {0o700}
    assert not list(made.rglob("*.part"))
    assert not [p for role in ROLES for p in (made / role).iterdir() if p.name == "authority.key"]


def test_the_settings_of_init_meet_each_other(made: Path) -> None:
    p0, p1 = load_party(made / "party0" / "party0.toml"), load_party(made / "party1" / "party1.toml")
    dealer, client = load_dealer(made / "dealer" / "dealer.toml"), load_client(made / "client" / "client.toml")
    assert (p0.rank, p1.rank, p0.queue, p1.queue) == (0, 1, 7, 7)
    assert p0.link == ("0.0.0.0", 7001) and p1.link == ("10.0.0.1", 7001)
    assert dealer.listen == ("0.0.0.0", PORTS["dealer"]) and p0.dealer == p1.dealer == ("10.0.0.3", PORTS["dealer"])
    assert p0.clients == ("0.0.0.0", PORTS["party0"]) and client.party0 == ("10.0.0.1", PORTS["party0"])
    assert p1.clients == ("127.0.0.1", PORTS["party1"]) and client.party1 == ("127.0.0.1", PORTS["party1"])
    assert p0.metrics == ("127.0.0.1", PORTS["metrics0"]) and p1.metrics == ("127.0.0.1", PORTS["metrics1"])
    assert p0.deadline == PartySettings.deadline


def test_machines_are_also_met_over_ipv6(tmp_path: Path) -> None:
    init(tmp_path / "certs", hosts={"party0": "2001:db8::1", "party1": "::1", "dealer": "localhost"})
    p0 = load_party(tmp_path / "certs" / "party0" / "party0.toml")
    p1 = load_party(tmp_path / "certs" / "party1" / "party1.toml")
    dealer = load_dealer(tmp_path / "certs" / "dealer" / "dealer.toml")
    assert p0.clients == ("::", PORTS["party0"]) and p0.link == ("::", PORTS["link"])
    assert p1.link == ("2001:db8::1", PORTS["link"]) and p1.clients == ("::1", PORTS["party1"])
    assert dealer.listen == ("127.0.0.1", PORTS["dealer"]) and p1.dealer == ("localhost", PORTS["dealer"])


@pytest.mark.parametrize("host", ["", "10.0.0.1:8442", "[::1]", "a b", "https://party0", "a/b", "a..b", "ho\nst"])
def test_a_host_that_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match="the machine of party1 must be a host name or an IP address"):
        init(tmp_path / "new", hosts={"party0": "party0.example", "party1": host})
    assert not (tmp_path / "new").exists()


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    used, file = tmp_path / "used", tmp_path / "file"
    used.mkdir()
    (used / "mine").write_text("mine")
    file.write_text("mine")
    for target in (used, file):
        with pytest.raises(SettingsError, match=r"not an empty folder.*secformer certify"):
            init(target)
    assert [p.name for p in used.iterdir()] == ["mine"] and file.read_text() == "mine"
    (empty := tmp_path / "empty").mkdir()
    assert [m.role for m in init(empty)] == list(ROLES)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"days": 0}, "valid for 1 to 3650 days, got 0"), ({"days": 10**9}, "valid for 1 to 3650 days"),
    ({"hosts": {"client": "x"}}, "hosts may be given for party0, party1 and dealer; got client"),
    ({"ports": {"party2": 1}}, "ports may be given for .*; got party2"),
])
def test_init_with_something_wrong_makes_nothing(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        init(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_certify_replaces_key_and_certificate_and_keeps_the_authority(authority: Path) -> None:
    before = {p: p.read_bytes() for p in authority.rglob("*") if p.is_file()}
    made = issue(authority, "party1", days=30)
    changed = {p for p, raw in before.items() if p.read_bytes() != raw}
    assert changed == {authority / "party1" / "party1.key", authority / "party1" / "party1.pem"}
    assert certificate(made.certificate).not_valid_after_utc == made.until.replace(microsecond=0)
    assert timedelta(days=29, hours=23) < made.until - datetime.now(UTC) <= timedelta(days=30)
    assert stat.S_IMODE((authority / "party1" / "party1.key").stat().st_mode) == 0o600
    assert certificate(made.certificate).not_valid_before_utc < datetime.now(UTC) - timedelta(hours=23), "slow clocks"


def test_a_client_may_have_a_name_which_is_no_role(authority: Path) -> None:
    made = issue(authority, "client", name="alice-2_b")
    mine = certificate(made.certificate)
    assert made.certificate == authority / "alice-2_b" / "alice-2_b.pem"
    assert mine.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "alice-2_b"
    names = mine.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host_name("client")]


def test_one_more_client_gets_settings_that_work_and_keeps_them(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "certs")
    issue(folder, "client", name="bob")
    alone = Path(shutil.move(folder / "bob", tmp_path / "bob"))  # as it is on the client's machine
    settings, first = load_client(alone / "bob.toml"), load_client(folder / "client" / "client.toml")
    assert (settings.party0, settings.party1) == (first.party0, first.party1)
    assert settings.tls == Identity(alone / "authority.pem", alone / "bob.pem", alone / "bob.key")
    assert settings.model == alone / "model"
    client_context(settings.tls)
    shutil.move(alone, folder / "bob")
    mine = folder / "bob" / "bob.toml"
    mine.write_text(mine.read_text("utf-8").replace("# deadline = 600.0", "deadline = 7.0"), "utf-8")
    issue(folder, "client", name="bob")
    assert load_client(mine).deadline == 7.0, "renewing leaves what its owner set"


def test_one_more_client_of_an_authority_alone_or_of_broken_settings(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "certs")
    (folder / "client" / "client.toml").write_text("party0 = 3", "utf-8")
    with pytest.raises(SettingsError, match=r"client\.toml"):
        issue(folder, "client", name="bob")
    assert not (folder / "bob").exists()
    issue(folder, "client")  # which needs no address
    shutil.rmtree(folder / "client")
    issue(folder, "client", name="bob")
    assert sorted(p.name for p in (folder / "bob").iterdir()) == ["authority.pem", "bob.key", "bob.pem"]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", ".", "a.b", "é", "x" * 65, "a\n"])
def test_a_name_that_is_no_name_is_refused(authority: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="letters, digits, - and _"):
        issue(authority, "client", name=name)


@pytest.mark.parametrize("name", ["authority", "party0", "party1", "dealer"])
def test_a_client_cannot_take_the_folder_of_a_role_or_of_the_authority(authority: Path, name: str) -> None:
    before = {p: p.read_bytes() for p in authority.rglob("*") if p.is_file()}
    with pytest.raises(SettingsError, match="taken"):
        issue(authority, "client", name=name)
    assert {p: p.read_bytes() for p in authority.rglob("*") if p.is_file()} == before


def test_what_certify_refuses(authority: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="must be one of party0, party1, dealer, client, got 'king'"):
        issue(authority, "king")
    with pytest.raises(SettingsError, match="a name may be given for clients only"):
        issue(authority, "party0", name="alice")
    with pytest.raises(SettingsError, match="1 to 3650 days, got -1"):
        issue(authority, "party0", days=-1)
    with pytest.raises(SettingsError, match=r"does not hold a readable authority.*secformer init"):
        issue(tmp_path, "party0")
    (tmp_path / "authority").mkdir()
    (tmp_path / "authority" / "authority.pem").write_text("no PEM")
    (tmp_path / "authority" / "authority.key").write_text("no PEM")
    with pytest.raises(SettingsError, match="does not hold a readable authority"):
        issue(tmp_path, "party0")
    assert not (tmp_path / "party0").exists()


def test_no_certificate_outlives_its_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "short"
    monkeypatch.setattr(certificates, "AUTHORITY_DAYS", 5)
    made = init(folder, days=5)
    monkeypatch.undo()
    end = certificate(folder / "authority" / "authority.pem").not_valid_after_utc
    made.append(issue(folder, "client", name="late", days=3650))
    assert all(m.until <= end + timedelta(seconds=1) for m in made) and made[-1].until == end
    assert certificate(made[-1].certificate).not_valid_after_utc == end


def test_an_expired_authority_signs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "AUTHORITY_DAYS", -1)
    monkeypatch.setattr(certificates, "SKEW", timedelta(days=3))
    certificates._make_authority(tmp_path / "authority")
    monkeypatch.undo()
    with pytest.raises(SettingsError, match=r"expired on .*secformer init"):
        issue(tmp_path, "party0")


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_init_and_certify_say_what_they_made_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    assert main(["init", str(folder), "--party1", "10.0.0.2", "--days", "20", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["certificates"]
    assert [c["role"] for c in said] == [c["name"] for c in said] == list(ROLES)
    for c in said:
        until = datetime.fromisoformat(c["until"])
        assert certificate(Path(c["certificate"])).not_valid_after_utc == until.replace(microsecond=0)
        assert until - datetime.now(UTC) <= timedelta(days=20)
    assert load_client(folder / "client" / "client.toml").party1 == ("10.0.0.2", PORTS["party1"])

    assert main(["certify", str(folder), "client", "--name", "bob", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["certificates"]
    assert (one["role"], one["name"], one["certificate"]) == ("client", "bob", str(folder / "bob" / "bob.pem"))
    assert main(["certify", str(folder), "client", "--name", "carol"]) == 0
    assert "carol" in capsys.readouterr().out

    assert main(["init", str(folder), "--json"]) == 1
    caught = capsys.readouterr()
    assert "not an empty folder" in caught.err and not caught.out
    assert main(["certify", str(folder), "client", "--name", "authority"]) == 1
    assert "taken" in capsys.readouterr().err
