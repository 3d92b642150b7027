"""Settings files of the served roles: TOML, one file per role, read into frozen values.

One table of fields per role reads the file, refuses unknown keys, and writes the commented template of `secformer
init`, so these cannot drift apart. Paths are relative to the file that names them.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from secformer.models.run.options import DURATION, is_duration
from secformer.mpc.backend import BACKENDS
from secformer.mpc.capture import GRAPHS
from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tcp import split_address
from secformer.mpc.net.tls import Identity
from secformer.roles.budgets import Budgets
from secformer.roles.linking import MOST_SLOTS
from secformer.roles.origins import Browsers

Address = tuple[str, int]
S = TypeVar("S")
LEVELS = ("debug", "info", "warning", "error")
TLS, BUDGETS, BROWSERS = "tls", "budgets", "browsers"
TABLES = (TLS, BUDGETS, BROWSERS)
MOST_WAITING = 1 << 14  # the ids of all requests that wait fit a note between the parties
OFF = ""  # the address of something that is turned off


def _key(kind: str, about: str, **limits: Any) -> dict[str, Any]:
    """What a settings file holds under a field's name: how it is read, what it means, which values are allowed."""
    return {"kind": kind, "about": about, **limits}


DEADLINE = _key("seconds", "how many seconds one message between roles may take")
BACKEND = _key("choice", "array library that computes", choices=BACKENDS)
THREADS = _key("whole", "how many cores compute; 0 means half of the machine's cores", least=0)
GRAPH = _key("choice", "on a GPU, whether requests of a shape that comes again are recorded as CUDA graphs",
             choices=GRAPHS)
AUDIT = _key("choice", "the audit log; required: nothing is served while it cannot be written; best effort: serving "
             "goes on, and metrics tell; off: there is none", choices=("required", "best effort", "off"))
AUDIT_FOLDER = _key("path", "folder of the audit log, for this role alone")
AUDIT_MB = _key("whole", "size at which a file of the audit log ends and the next one goes on, in MB", least=1)
METRICS = _key("address?",
               'address for health checks and Prometheus metrics over plain HTTP; "" turns both off')
LOG_LEVEL = _key("choice", "lowest severity that is logged", choices=LEVELS)


class _Checked:
    """A record whose numbers and choices are checked however it is made: from a file or in Python."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            _require(f.name, getattr(self, f.name), f.metadata)


@dataclass(frozen=True)
class PartySettings(_Checked):
    """One party."""

    rank: int = field(metadata=_key("whole", "rank of this party: 0 or 1", least=0, most=1))
    model: Path = field(metadata=_key("path", "this party's share file, written by `secformer provision`"))
    state: Path = field(
        metadata=_key("path", "folder for what must outlive the process: the epoch's seed and the used serials"))
    clients: Address = field(metadata=_key("address", "address that this party listens on for clients (HTTPS)"))
    link: Address = field(metadata=_key("address", "address where party 0 listens for party 1"))
    dealer: Address = field(metadata=_key("address", "address of the dealer"))
    tls: Identity = field(metadata=_key(TLS, "certificate and key of this role"))
    metrics: Address | None = field(default=None, metadata=METRICS)
    store: Path = field(
        default=Path("store"), metadata=_key("path", "party 1: folder of the material that is made ahead of time"))
    ahead_mb: int = field(default=0, metadata=_key(
        "whole", "party 1: how many MB `store` may hold; below that, material is made ahead for the shapes that "
        "clients ask for; 0: none is, except by `secformer deal`", least=0))
    ahead_requests: int = field(default=100, metadata=_key(
        "whole", "party 1: for how many requests of one shape material is made ahead", least=1))
    deadline: float = field(default=60.0, metadata=DEADLINE)
    dealer_wait: float = field(default=30.0, metadata=_key(
        "seconds", "how many seconds a request waits for an unreachable dealer; must be below `deadline`"))
    request_deadline: float = field(default=600.0, metadata=_key(
        "seconds", "how many seconds a request may take in total, including the time that it waits"))
    header_deadline: float = field(
        default=30.0, metadata=_key("seconds", "how many seconds a client may take to send a request"))
    in_flight: int = field(default=2, metadata=_key(
        "whole", "how many requests run at the same time; must be the same at both parties", least=1, most=MOST_SLOTS))
    queue: int = field(default=1000, metadata=_key(
        "whole", "how many requests may wait; further ones are refused", least=1, most=MOST_WAITING))
    half_deadline: float = field(default=10.0, metadata=_key(
        "seconds", "how many seconds half a request may wait while the other party does not have the other half"))
    client_requests: int = field(default=64, metadata=_key(
        "whole", "how many requests of one client may be here at the same time, waiting or running", least=1))
    held_mb: int = field(default=2048, metadata=_key(
        "whole", "how much memory the bodies of all requests here may take together, in MB", least=2))
    client_mb: int = field(default=512, metadata=_key(
        "whole", "how much of that one client's requests may take, in MB; at most half of it", least=1))
    client_connections: int = field(default=64, metadata=_key(
        "whole", "how many connections one client may have; its idle ones give way to new ones", least=1))
    sessions: int = field(default=32, metadata=_key(
        "whole", "how many texts that clients generate may be open here at the same time", least=1))
    session_idle: float = field(default=600.0, metadata=_key(
        "seconds", "after how many seconds without a request such a text is ended"))
    session_age: float = field(default=86400.0, metadata=_key(
        "seconds", "after how many seconds such a text is ended, however much it is used"))
    session_mb: int = field(default=4096, metadata=_key(
        "whole", "how much memory such texts may take together, in MB", least=1))
    client_sessions: int = field(default=16, metadata=_key(
        "whole", "how many such texts one client may have open here at the same time", least=1))
    client_session_mb: int = field(default=2048, metadata=_key(
        "whole", "how much memory the texts of one client may take together, in MB", least=1))
    max_body_mb: int = field(default=256, metadata=_key("whole", "largest size of a request's body, in MB", least=1))
    max_tokens: int = field(default=4096, metadata=_key(
        "whole", "most positions in one request: the number of texts times the tokens of the longest text", least=1))
    backend: str = field(default="auto", metadata=BACKEND)
    threads: int = field(default=0, metadata=THREADS)
    graph: str = field(default="auto", metadata=GRAPH)
    audit: str = field(default="required", metadata=AUDIT)
    audit_folder: Path = field(default=Path("audit"), metadata=AUDIT_FOLDER)
    audit_mb: int = field(default=64, metadata=AUDIT_MB)
    receipts: bool = field(default=True, metadata=_key(
        "flag", "true: clients get signed receipts of their requests; false: they get none"))
    status: bool = field(default=True, metadata=_key(
        "flag", "true: clients may ask whether this party is ready and how much waits, runs and is stored, of all "
        "clients together; false: they may not"))
    log_level: str = field(default="info", metadata=LOG_LEVEL)
    budgets: Budgets = field(default=Budgets(), metadata=_key(BUDGETS, "how much each client may ask per day"))
    browsers: Browsers | None = field(default=None, metadata=_key(BROWSERS, "a port for pages in browsers"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_body_mb <= self.client_mb <= self.held_mb // 2:
            raise SettingsError(f"max_body_mb must be at most client_mb, and client_mb at most half of held_mb, so "
                                f"that one client's requests fit; got {self.max_body_mb}, {self.client_mb} and "
                                f"{self.held_mb} MB")
        if self.dealer_wait >= self.deadline:  # else the other party ends the link first
            raise SettingsError(f"dealer_wait must be below deadline, got {self.dealer_wait:g} and {self.deadline:g} "
                                f"seconds")


@dataclass(frozen=True)
class DealerSettings(_Checked):
    """The dealer."""

    listen: Address = field(metadata=_key("address", "address that the dealer listens on for the parties"))
    state: Path = field(
        metadata=_key("path", "folder for what must outlive the process: both parties' seeds and the used serials"))
    tls: Identity = field(metadata=_key(TLS, "certificate and key of this role"))
    metrics: Address | None = field(default=None, metadata=METRICS)
    deadline: float = field(default=60.0, metadata=DEADLINE)
    epoch_days: int = field(default=0, metadata=_key(
        "whole", "after how many days an epoch gives way to a new one, with new masks; 0: never by itself", least=0))
    max_streams: int = field(
        default=8, metadata=_key("whole", "how many requests the dealer serves at the same time; beside them it serves "
                                  "half as many asks for stores, which give way", least=1))
    backend: str = field(default="auto", metadata=BACKEND)
    threads: int = field(default=0, metadata=THREADS)
    graph: str = field(default="auto", metadata=GRAPH)
    audit: str = field(default="required", metadata=AUDIT)
    audit_folder: Path = field(default=Path("audit"), metadata=AUDIT_FOLDER)
    audit_mb: int = field(default=64, metadata=AUDIT_MB)
    log_level: str = field(default="info", metadata=LOG_LEVEL)


@dataclass(frozen=True)
class ClientSettings(_Checked):
    """A client."""

    party0: Address = field(metadata=_key("address", "address of party 0"))
    party1: Address = field(metadata=_key("address", "address of party 1"))
    model: Path = field(metadata=_key("path", "the clients' folder, written by `secformer provision`"))
    tls: Identity = field(metadata=_key(TLS, "certificate and key of this client"))
    deadline: float = field(default=600.0, metadata=_key("seconds", "how many seconds a request may take in total"))
    batch_tokens: int = field(default=1024, metadata=_key(
        "whole", "most positions in one request: the number of texts times the tokens of the longest text", least=1))
    in_flight: int = field(default=2, metadata=_key(
        "whole", "how many requests a call sends at the same time; a call of fewer requests is cut, where it has the "
        "texts", least=1, most=MOST_SLOTS))
    pad_to: int = field(default=1, metadata=_key(
        "whole", "texts are filled up to a multiple of so many tokens, so that parties on GPUs meet few shapes, but "
        "the guard may then mark texts for a filler's values; 1: texts keep their lengths", least=1))
    truncation: bool = field(
        default=False, metadata=_key("flag", "true: cut texts that are too long for the model; false: refuse them"))


def load_party(path: str | Path) -> PartySettings:
    """A party's settings. Raises SettingsError that names the file, the key and the allowed values."""
    return _load(PartySettings, Path(path))


def load_dealer(path: str | Path) -> DealerSettings:
    """The dealer's settings. Raises SettingsError that names the file, the key and the allowed values."""
    return _load(DealerSettings, Path(path))


def load_client(path: str | Path) -> ClientSettings:
    """A client's settings. Raises SettingsError that names the file, the key and the allowed values."""
    return _load(ClientSettings, Path(path))


def template(cls: type, values: Mapping[str, Any], tls: Mapping[str, str]) -> str:
    """The text of a settings file with a comment for every key. A key without a value in `values` is a comment itself,
    with its default."""
    lines = [f"# Settings of secformer: {(cls.__doc__ or '').strip().rstrip('.').lower()}. Paths are relative to this "
             f"file.", ""]
    for f in fields(cls):
        if f.name in TABLES:
            continue
        choices = f": {', '.join(f.metadata['choices'])}" if f.metadata["kind"] == "choice" else ""
        lines.append(f"# {f.metadata['about']}{choices}")
        if f.name in values:
            lines.append(f"{f.name} = {_toml(values[f.name])}")
        else:
            lines.append(f"# {f.name} = {_toml(f.default)}")
        lines.append("")
    lines += ["[tls]", "# PEM files: the private authority's certificate, this role's certificate, this role's key;",
              "# the authority's list of revoked certificates. A running role reads them again when they change."]
    lines += [f"{f.name} = {_toml(tls[f.name])}" for f in fields(Identity) if f.name in tls]
    if any(f.name == BUDGETS for f in fields(cls)):
        lines += ["", *Budgets.TEMPLATE, "", *_browsers(values.get(BROWSERS))]
    return "\n".join(lines) + "\n"


def _browsers(given: Browsers | None) -> list[str]:
    """The lines of the table [browsers]; comments, unless it is given."""
    shown, mark = given or Browsers(("127.0.0.1", 8444), ["https://page.example"]), "# " if given is None else ""
    lines = ["# a port for pages in browsers; without this table, there is none", f"{mark}[{BROWSERS}]"]
    for name, about in Browsers.ABOUT.items():
        lines += [f"# {about}", f"{mark}{name} = {_toml(getattr(shown, name))}"]
    return lines


def _load(cls: type[S], path: Path) -> S:
    given = read_toml(path, "settings file", "`secformer init` writes one")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    refuse_unknown(path, "", given, list(known))
    values = {}
    for name, f in known.items():
        if name in given:
            values[name] = _read(path, name, given[name], f.metadata)
        elif f.default is MISSING:
            raise SettingsError(f"{path} lacks the key {name!r}: {f.metadata['about']}")
        elif isinstance(f.default, Path):
            values[name] = path.parent / f.default
    try:
        return cls(**values)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def read_toml(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """A file's top table. Raises SettingsError: `what` the file is, and the `remedy` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read the {what} {path}: {error.strerror}; {remedy}") from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, and of whole numbers with too many digits
        raise SettingsError(f"{path} is not a TOML file: {error}") from error


def refuse_unknown(path: Path, where: str, given: Mapping[str, Any], known: list[str]) -> None:
    """Raises SettingsError for a key that is not known, with the nearest one; `where` comes before the key's name."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SettingsError(f"{path}: unknown key {where}{name!r}: {hint}The keys are {', '.join(known)}")


def _require(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raises SettingsError for a flag, a number or a choice that is not allowed. Other kinds are checked when read."""
    kind, least, most = limits["kind"], limits.get("least", 0), limits.get("most")
    holds, wanted = True, ""
    if kind == "flag":
        holds, wanted = isinstance(value, bool), "true or false"
    elif kind == "whole":
        holds = (isinstance(value, int) and not isinstance(value, bool) and least <= value
                 and (most is None or value <= most))
        wanted = f"a whole number {f'of at least {least}' if most is None else f'from {least} to {most}'}"
    elif kind == "seconds":
        holds, wanted = is_duration(value), DURATION
    elif kind == "choice":
        holds, wanted = isinstance(value, str) and value in limits["choices"], f"one of {', '.join(limits['choices'])}"
    if not holds:
        raise SettingsError(f"{name} must be {wanted}, got {value!r}")


def _read(path: Path, name: str, value: Any, limits: Mapping[str, Any]) -> Any:
    """The value of a key, in the type of its field. Raises SettingsError."""
    kind = limits["kind"]
    if kind == TLS:
        return _identity(path, value)
    if kind in (BUDGETS, BROWSERS):
        try:
            return Budgets.read(value) if kind == BUDGETS else Browsers.read(value, path.parent)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from None
    if kind in ("flag", "whole", "seconds", "choice"):
        try:
            _require(name, value, limits)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from None
        return float(value) if kind == "seconds" else value
    if not isinstance(value, str):
        raise SettingsError(f"{path}: {name} must be a string, got {value!r}")
    if kind == "path":
        if not value:
            raise SettingsError(f"{path}: {name} must be a path, got {value!r}")
        return path.parent / value
    if kind == "address?" and value == OFF:
        return None
    try:
        return split_address(value)
    except SettingsError as error:
        raise SettingsError(f"{path}: {name}: {error}") from None


def _identity(path: Path, given: Any) -> Identity:
    names = [f.name for f in fields(Identity)]
    if not isinstance(given, dict):
        raise SettingsError(f"{path}: [tls] must be a table with the keys {', '.join(names)}")
    refuse_unknown(path, "tls.", given, names)
    names = [f.name for f in fields(Identity) if f.name in given or f.default is MISSING]
    for name in names:
        if not isinstance(given.get(name), str) or not given[name]:
            raise SettingsError(f"{path}: tls.{name} must be the path of a PEM file, got {given.get(name)!r}")
    return Identity(*(path.parent / given[name] for name in names))


def _toml(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, tuple):
        host, port = value
        return f'"[{host}]:{port}"' if ":" in host else f'"{host}:{port}"'
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
