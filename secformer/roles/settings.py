"""Settings files of the served roles: TOML, one file a role, read into frozen values.

The same table of fields reads a file, refuses what it does not know, and writes the commented templates of
`secformer init`, so that these cannot drift apart. Paths are relative to the file that names them.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from secformer.mpc.errors import SettingsError
from secformer.mpc.net.tcp import split_address
from secformer.mpc.net.tls import Identity

Address = tuple[str, int]
S = TypeVar("S")
LONGEST = 365 * 86400.0  # seconds, of any deadline
LEVELS = ("debug", "info", "warning", "error")
BACKENDS = ("auto", "numpy", "cupy")
TLS = "tls"
OFF = ""


def _key(kind: str, about: str, **limits: Any) -> dict[str, Any]:
    """What a settings file holds under a field's name: how it is read, what it means, what it may be."""
    return {"kind": kind, "about": about, **limits}


@dataclass(frozen=True)
class PartySettings:
    """One party."""

    rank: int = field(metadata=_key("whole", "which party this is: 0 or 1", least=0, most=1))
    model: Path = field(metadata=_key("path", "this party's share file, as `secformer provision` wrote it"))
    state: Path = field(
        metadata=_key("path", "folder for what must outlive the process: the epoch's seed, used serials"))
    clients: Address = field(metadata=_key("address", "where clients reach this party (HTTPS)"))
    link: Address = field(
        metadata=_key("address", "party 0: where it listens for party 1; party 1: where party 0 listens"))
    dealer: Address = field(metadata=_key("address", "where the dealer listens"))
    tls: Identity = field(metadata=_key(TLS, "who this role is"))
    metrics: Address | None = field(
        default=None, metadata=_key("address?", 'health and Prometheus metrics over plain HTTP; "" turns it off'))
    store: Path = field(
        default=Path("store"), metadata=_key("path", "party 1: folder of material that `secformer deal` made ahead"))
    deadline: float = field(default=60.0, metadata=_key("seconds", "that one message between roles may take"))
    dealer_wait: float = field(
        default=30.0, metadata=_key("seconds", "that a request waits for an absent dealer; below `deadline`"))
    request_deadline: float = field(
        default=600.0, metadata=_key("seconds", "that a request may take in all, waiting included"))
    header_deadline: float = field(default=30.0, metadata=_key("seconds", "that a client may take to send a request"))
    queue: int = field(default=1000, metadata=_key("whole", "requests that may wait; more are refused", least=1))
    max_body_mb: int = field(default=256, metadata=_key("whole", "size of a request's body", least=1))
    max_tokens: int = field(
        default=4096, metadata=_key("whole", "positions (texts times longest text) of one request", least=1))
    backend: str = field(default="auto", metadata=_key("choice", "which array library computes", choices=BACKENDS))
    threads: int = field(default=0, metadata=_key("whole", "cores to compute with; 0: half of the machine's", least=0))
    log_level: str = field(default="info", metadata=_key("choice", "least severity that is logged", choices=LEVELS))


@dataclass(frozen=True)
class DealerSettings:
    """The dealer."""

    listen: Address = field(metadata=_key("address", "where the parties reach the dealer"))
    state: Path = field(
        metadata=_key("path", "folder for what must outlive the process: seeds of both parties, used serials"))
    tls: Identity = field(metadata=_key(TLS, "who this role is"))
    deadline: float = field(default=60.0, metadata=_key("seconds", "that one message between roles may take"))
    max_streams: int = field(default=8, metadata=_key("whole", "requests that are dealt for at once", least=1))
    backend: str = field(default="auto", metadata=_key("choice", "which array library computes", choices=BACKENDS))
    threads: int = field(default=0, metadata=_key("whole", "cores to compute with; 0: half of the machine's", least=0))
    log_level: str = field(default="info", metadata=_key("choice", "least severity that is logged", choices=LEVELS))


@dataclass(frozen=True)
class ClientSettings:
    """A client."""

    party0: Address = field(metadata=_key("address", "where party 0 answers clients"))
    party1: Address = field(metadata=_key("address", "where party 1 answers clients"))
    model: Path = field(metadata=_key("path", "the clients' folder, as `secformer provision` wrote it"))
    tls: Identity = field(metadata=_key(TLS, "who this client is"))
    deadline: float = field(default=600.0, metadata=_key("seconds", "that a request may take in all"))
    batch_tokens: int = field(
        default=1024, metadata=_key("whole", "positions (texts times longest text) that are sent together", least=1))
    truncation: bool = field(default=False, metadata=_key("flag", "cut texts that are too long for the model"))


def load_party(path: str | Path) -> PartySettings:
    """Raises SettingsError with the file, the key and what holds."""
    settings = _load(PartySettings, Path(path))
    if settings.dealer_wait >= settings.deadline:  # the other party would give the link up first
        raise SettingsError(f"{path}: dealer_wait must be below deadline, got {settings.dealer_wait:g} and "
                            f"{settings.deadline:g} seconds")
    return settings


def load_dealer(path: str | Path) -> DealerSettings:
    """Raises SettingsError with the file, the key and what holds."""
    return _load(DealerSettings, Path(path))


def load_client(path: str | Path) -> ClientSettings:
    """Raises SettingsError with the file, the key and what holds."""
    return _load(ClientSettings, Path(path))


def template(cls: type, values: Mapping[str, Any], tls: Mapping[str, str]) -> str:
    """A settings file with every key explained; keys without a value in `values` stand as comments with their
    default."""
    lines = [f"# Settings of secformer: {(cls.__doc__ or '').strip().rstrip('.').lower()}. Paths are relative to this "
             f"file.", ""]
    for f in fields(cls):
        if f.name == TLS:
            continue
        unit = "seconds " if f.metadata["kind"] == "seconds" else ""
        lines.append(f"# {unit}{f.metadata['about']}")
        if f.name in values:
            lines.append(f"{f.name} = {_toml(values[f.name])}")
        else:
            lines.append(f"# {f.name} = {_toml(f.default)}")
        lines.append("")
    lines += ["[tls]", "# PEM files: the private authority's certificate, this role's certificate, this role's key"]
    lines += [f"{f.name} = {_toml(tls[f.name])}" for f in fields(Identity)]
    return "\n".join(lines) + "\n"


def _load(cls: type[S], path: Path) -> S:
    try:
        with path.open("rb") as file:
            given = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}; `secformer init` writes "
                            f"one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML file: {error}") from error
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(path, "", given, list(known))
    values = {}
    for name, f in known.items():
        if name in given:
            values[name] = _read(path, name, given[name], f.metadata)
        elif f.default is MISSING:
            raise SettingsError(f"{path} lacks the key {name!r}: {f.metadata['about']}")
        elif isinstance(f.default, Path):
            values[name] = path.parent / f.default
    return cls(**values)


def _refuse_unknown(path: Path, where: str, given: Mapping[str, Any], known: list[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SettingsError(f"{path}: unknown key {where}{name!r}: {hint}The keys are {', '.join(known)}")


def _read(path: Path, name: str, value: Any, limits: Mapping[str, Any]) -> Any:
    """A key's value in its own type. Raises SettingsError."""
    def wrong(wanted: str) -> SettingsError:
        return SettingsError(f"{path}: {name} must be {wanted}, got {value!r}")

    kind = limits["kind"]
    if kind == TLS:
        return _identity(path, value)
    if kind == "flag":
        if not isinstance(value, bool):
            raise wrong("true or false")
        return value
    if kind == "whole":
        least, most = limits["least"], limits.get("most", math.inf)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise wrong(f"a whole number from {least}" + (f" to {most}" if most < math.inf else " on"))
        return value
    if kind == "seconds":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= LONGEST:
            raise wrong("a positive number of seconds, of a year at most")
        return float(value)
    if not isinstance(value, str):
        raise wrong("a string")
    if kind == "choice":
        if value not in limits["choices"]:
            raise wrong(f"one of {', '.join(limits['choices'])}")
        return value
    if kind == "path":
        if not value:
            raise wrong("a path")
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
        raise SettingsError(f"{path}: [tls] is a table with the keys {', '.join(names)}")
    _refuse_unknown(path, "tls.", given, names)
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
    if isinstance(value, tuple):
        host, port = value
        return f'"[{host}]:{port}"' if ":" in host else f'"{host}:{port}"'
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
