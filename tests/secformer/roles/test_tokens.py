"""Tokens: what they say, how they are read, and whom a party believes."""

from __future__ import annotations

import json
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from links_lab import identity
from tree import ROOT

from secformer.mpc.errors import InputError
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import name_of, role_of
from secformer.mpc.strict_json import read_own
from secformer.roles import tokens
from secformer.roles.certificates import REVOKED, init, issue, revoke
from secformer.roles.settings import load_client
from secformer.roles.signing import Signed, Signer, der_of
from secformer.roles.tokens import MOST, MOST_SECONDS, PURPOSE, SKEW, Claims, Pair, Token, TokenRefused, Tokens, make

MODEL, LONGEST = "cd" * 32, 900.0
HEX = "ab" * 16


class Party:
    """Party 0's check, at a time that the test sets."""

    def __init__(self, roles: Path, rank: int = 0):
        self.roles, self.now = roles, time.time()
        self.files = replace(identity(roles, f"party{rank}"), revoked=roles / f"party{rank}" / REVOKED)
        self.credentials = Credentials(self.files, clock=lambda: self.now)
        self.tokens = Tokens(rank, MODEL, LONGEST, self.credentials, self.files.authority, lambda: self.now)

    def token(self, client: str = "client", rank: int = 0, model: str = MODEL, seconds: int = 600,
              requests: int = 1000) -> str:
        return make(Signer(identity(self.roles, client)), rank, model, seconds, requests, now=self.now)

    def refuses(self, token: str) -> tuple[str, str]:
        """Why, in a word and in a sentence."""
        with pytest.raises(TokenRefused) as caught:
            self.tokens.check(token)
        return caught.value.why, str(caught.value)


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    init(folder := tmp_path_factory.mktemp("tokens") / "roles")
    return folder


@pytest.fixture
def party(roles: Path) -> Party:
    return Party(roles)


def signed(party: Party, text: str, client: str = "client") -> str:
    """A token of any text, rightly signed."""
    found = Signer(identity(party.roles, client)).sign(PURPOSE, text)
    der = Token.read(party.token(client)).text.split(".")[1]
    return ".".join((coded(text.encode()), der, coded(b64decode(found.signature))))


def coded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def claims(here: Party, client: str = "client", **changes: Any) -> str:
    """The text of claims, with changes of any kind; `...` leaves one out."""
    start = int(here.now)
    shown = sha256(der_of(identity(here.roles, client).certificate.read_text())).hexdigest()
    own = asdict(Claims("party0", MODEL, shown, start, start + 600, 5, HEX)) | changes
    return json.dumps({k: v for k, v in own.items() if v is not ...}, separators=(",", ":"), sort_keys=True)


# ---- what holds ------------------------------------------------------------------------------------------------------


def test_a_token_names_its_client(party: Party) -> None:
    issue(party.roles, "client", name="alice")
    for client in ("client", "alice"):
        found = party.tokens.check(party.token(client))
        assert (role_of(found), name_of(found)) == ("client", client)
        assert len(party.token(client)) < 1200 and party.credentials.objection(found) == ""


def test_each_token_is_another_and_none_is_printed(party: Party) -> None:
    one, two = (party.token() for _ in range(2))
    ids = {Token.read(each).claims.id for each in (one, two)}
    assert len(ids) == 2 and Token.read(one).text == one
    pair = Pair(one, two, 5)
    assert one[-20:] not in repr(pair) + repr(Token.read(one)) and pair.as_dict() == {
        "party0": one, "party1": two, "expires": 5}


def test_a_pair_is_made_from_a_clients_settings(roles: Path, tmp_path: Path) -> None:
    settings = load_client(roles / "client" / "client.toml")
    (model := tmp_path / "model").mkdir()
    copy(ROOT / "fuzz/targets/client/public.json", model)
    pair = tokens.pair(replace(settings, model=model), 300, 7)
    read = [Token.read(each).claims for each in (pair.party0, pair.party1)]
    assert [each.party for each in read] == ["party0", "party1"] and read[0].id != read[1].id
    assert {(each.until, each.until - each.start, each.requests) for each in read} == {(pair.expires, 300, 7)}
    assert {each.model for each in read} == {read_own((model / "public.json").read_bytes())["digest"]}
    assert abs(pair.expires - time.time() - 300) < 60


def test_clocks_may_differ_a_little(party: Party) -> None:
    token = party.token(seconds=60)
    start = Token.read(token).claims.start
    for now, why in ((start - SKEW - 1, "too early"), (start - SKEW, ""), (start + 59, ""), (start + 59 + SKEW, ""),
                     (start + 60 + SKEW, "expired")):
        party.now = now
        if why:
            assert party.refuses(token)[0] == why
        else:
            party.tokens.check(token)


# ---- what does not ---------------------------------------------------------------------------------------------------


REFUSED: list[tuple[str, Callable[[Party], str], str, str]] = [
    ("expired", lambda p: later(p, 600 + SKEW, p.token()), "expired", "expired 30 s ago"),
    ("early", lambda p: later(p, -500, p.token()), "too early", "clocks"),
    ("long", lambda p: p.token(seconds=901), "too long", "may hold 900 s here, but this one was made for 901 s"),
    ("backwards", lambda p: signed(p, claims(p, until=int(p.now) - 1)), "too long", "made for -1 s"),
    ("no time", lambda p: signed(p, claims(p, until=int(p.now))), "too long", "made for 0 s"),
    ("party 1's", lambda p: p.token(rank=1), "other party", "for 'party1', but this is party0"),
    ("another model's", lambda p: p.token(model="ab" * 32), "other model", "the same provisioning"),
    ("a party's", lambda p: p.token("party1"), "role", "this certificate is party1's"),
    ("the dealer's", lambda p: p.token("dealer"), "role", "this certificate is dealer's"),
    ("of another purpose", lambda p: swapped(p, "receipt"), "signature", "was changed"),
]


def later(party: Party, seconds: float, token: str) -> str:
    party.now = Token.read(token).claims.start + seconds
    return token


def swapped(party: Party, purpose: str) -> str:
    token = Token.read(party.token())
    other = Signer(identity(party.roles, "client")).sign(purpose, token.claims.text)
    return replace(token, signed=other).text


@pytest.mark.parametrize(("token", "why", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_tokens_that_do_not_hold(party: Party, token: Callable[[Party], str], why: str, said: str) -> None:
    found = party.refuses(token(party))
    assert found[0] == why and said in found[1], found


def test_a_foreign_authoritys_client_is_refused(party: Party, tmp_path: Path) -> None:
    """Also one whose authority has the same name, and whose certificate says the same."""
    init(tmp_path / "foreign")
    token = make(Signer(identity(tmp_path / "foreign", "client")), 0, MODEL, 600, 5)
    why, said = party.refuses(token)
    assert why == "authority" and "not issued by the authority that is trusted here" in said


def test_a_clients_certificate_without_its_key_signs_nothing(party: Party) -> None:
    """A certificate is public: with another key's signature it says nothing."""
    issue(party.roles, "client", name="mallory")
    text, client = claims(party), identity(party.roles, "client").certificate.read_text()
    theirs = Signer(identity(party.roles, "mallory")).sign(PURPOSE, text)
    assert party.refuses(Token(Claims.read(text), Signed(theirs.signature, client)).text)[0] == "signature"
    assert party.refuses(Token(Claims.read(text), theirs).text)[0] == "malformed", "nor with its own certificate"


def test_a_self_signed_certificate_is_refused(party: Party) -> None:
    """The authority's own certificate names no role; a copy of its name signed by another key was not issued."""
    key = party.roles / "authority" / "authority.key"
    assert load_pem_private_key(key.read_bytes(), None)
    files = replace(identity(party.roles, "client"), certificate=party.roles / "authority" / "authority.pem", key=key)
    assert party.refuses(make(Signer(files), 0, MODEL, 600, 5))[0] == "authority"


def test_a_changed_token_never_holds(party: Party) -> None:
    """Each character in turn, and each part of another token of the same client."""
    token, other = party.token(), party.token()
    for i in range(len(token)):
        changed = token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1:]
        assert party.refuses(changed)[0] in {"malformed", "signature", "other party", "other model", "authority",
                                             "too long", "too early", "expired"}
    for part in (0, 2):  # the second parts are equal
        parts = token.split(".")
        parts[part] = other.split(".")[part]
        assert party.refuses(".".join(parts))[0] == "signature"
    party.tokens.check(token)


MALFORMED = ["", ".", "..", "a.b", "a.b.c.d", "é.b.c", " ", "a" * (MOST + 1)]


@pytest.mark.parametrize("change", [
    *(lambda t, junk=junk: junk for junk in MALFORMED), lambda t: t + "=", lambda t: t + "\n", lambda t: " " + t,
    lambda t: t.replace(".", "..", 1), lambda t: t + "." + t, lambda t: t.replace("-", "+").replace("_", "/") + "/",
    lambda t: "." + t.partition(".")[2], lambda t: t[:-1], lambda t: f"{t.split('.')[0]}.AAAA.{t.split('.')[2]}",
])
def test_what_is_no_token_is_malformed(party: Party, change: Callable[[str], str]) -> None:
    assert party.refuses(change(party.token()))[0] in ("malformed", "signature")


CLAIMS: list[dict[str, Any]] = [
    {"party": 0}, {"party": ...}, {"model": None}, {"start": 1.5}, {"start": "1"}, {"start": -1}, {"until": True},
    {"until": 1 << 64}, {"requests": 0}, {"requests": 1_000_001}, {"requests": 2.0}, {"id": "ab"}, {"id": "AB" * 16},
    {"id": "ab" * 17}, {"id": 5}, {"certificate": "ab" * 32}, {"certificate": 5}, {"version": 2}, {"version": "1"},
    {"more": 1}, {"version": ...},
]


@pytest.mark.parametrize("changes", CLAIMS, ids=str)
def test_claims_of_another_form_are_malformed_though_signed(party: Party, changes: dict[str, Any]) -> None:
    party.tokens.check(signed(party, claims(party)))
    assert party.refuses(signed(party, claims(party, **changes)))[0] == "malformed"


@pytest.mark.parametrize("text", ["[]", "{}", "null", "1", '"a"', "{", "[" * 5000, "\0", ""])
def test_texts_that_are_no_claims(party: Party, text: str) -> None:
    assert party.refuses(signed(party, text))[0] == "malformed"


def test_claims_have_one_text(party: Party) -> None:
    text = claims(party)
    for other in (text.replace(",", ", ", 1), text + " ", text[:-1] + ',"version":1}',
                  text.replace("party0", "party\\u0030")):
        assert party.refuses(signed(party, other))[0] == "malformed"


@pytest.mark.parametrize(("seconds", "requests"), [(0, 1), (-1, 1), (MOST_SECONDS + 1, 1), (1.5, 1), (True, 1), (60, 0),
                                                  (60, 1_000_001), (60, "5")])
def test_tokens_that_no_party_would_take_are_not_made(party: Party, seconds: Any, requests: Any) -> None:
    with pytest.raises(InputError, match="a token must hold"):
        party.token(seconds=seconds, requests=requests)


# ---- what changes while the party serves -----------------------------------------------------------------------------


def test_a_certificate_is_refused_once_it_is_revoked_or_expired(party: Party) -> None:
    issue(party.roles, "client", name="carol", days=1)
    token = party.token("carol", seconds=900)
    party.tokens.check(token)
    revoke(party.roles, "carol")
    party.credentials.renew(now=True)
    assert party.refuses(token)[0] == "certificate" and "was revoked on" in party.refuses(token)[1]
    issue(party.roles, "client", name="carol", days=1)
    party.now += 86400 - 300
    token = party.token("carol", seconds=900)
    party.tokens.check(token)
    party.now += 400
    assert party.refuses(token)[0] == "certificate" and "expired on" in party.refuses(token)[1]


def test_a_new_authority_is_believed_and_the_old_one_is_not(tmp_path: Path) -> None:
    init(tmp_path / "old")
    init(tmp_path / "new")
    party, successor = Party(tmp_path / "old"), Party(tmp_path / "new")
    old, new = party.token(), successor.token()
    party.tokens.check(old)
    assert party.refuses(new)[0] == "authority"
    for here, there in zip((*vars(party.files).values(),), (*vars(successor.files).values(),), strict=True):
        here.write_bytes(there.read_bytes())
    party.credentials.renew(now=True)
    party.tokens.check(new)
    assert party.refuses(old)[0] == "authority"


def test_requests_are_counted_until_a_token_expires(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_TOKENS", 2)
    issue(party.roles, "client", name="dora")
    first, second, third = (party.token("dora", requests=2) for _ in range(3))
    for _ in range(2):
        party.tokens.check(first)
    assert party.refuses(first) == ("spent", "the token was good for 2 requests; make a new one")
    party.tokens.check(second)
    assert party.refuses(third)[0] == "too many"
    party.tokens.check(party.token())  # another client's
    party.now += 600 + SKEW
    party.tokens.check(party.token("dora"))
    assert set(party.tokens._used["dora"]) and len(party.tokens._used["dora"]) == 1, "what has expired is forgotten"


def test_what_does_not_hold_is_not_counted(party: Party) -> None:
    text = claims(party)
    for token in (swapped(party, "receipt"), party.token(rank=1), party.token("party1")):
        party.refuses(token)
    assert not party.tokens._used and Claims.read(text).requests == 5
