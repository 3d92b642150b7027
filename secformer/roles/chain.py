"""The form of an audit log: JSON lines, each with the hash of the line before it, in files that go on from each other.

A line is {"number", "previous", "chain", "role", "time", "event", ...}. Numbers rise by one from 1 on. "previous" is
the SHA-256 of the bytes of the line before, without its end, or zeros in the first line. "chain" is a random name. A
file is named by the number of its first line. Some lines carry a signature over the line before: every start, every
end in order, and "anchor" lines between.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from secformer.mpc.errors import AuthError, InputError
from secformer.mpc.strict_json import read_own
from secformer.roles.signing import Authority, Signed, require_signature, role_in

FORMAT = "secformer audit 1"  # signed lines name it; logs that name none are of this format, too
BEGINNING = "0" * 64  # what the first line names as the hash of the line before
SUFFIX = ".jsonl"
LONGEST = 1 << 16     # bytes of a line
ANCHOR = "anchor"     # purpose of the signature
CUT = "it is cut"
BEGAN, RESUMED, ENDED, REQUEST, DEALT, EPOCH, LOST, UNSYNCED = (
    "began", "resumed", "ended", "request", "dealt", "epoch", "lost", "unsynced")


@dataclass(frozen=True)
class Head:
    """A place in a chain: the number of a line, and the hash of that line."""

    number: int = 0
    digest: str = BEGINNING

    @property
    def shown(self) -> str:
        return f"{self.number}:{self.digest}"

    @classmethod
    def read(cls, text: str) -> Head:
        """The inverse of `shown`. Raises InputError."""
        number, _, digest = text.partition(":")
        if not (number.isascii() and number.isdigit() and len(digest) == 64
                and not set(digest) - set("0123456789abcdef")):
            raise InputError(f"a head is NUMBER:HASH, the hash as 64 hexadecimal digits; got {text[:100]!r}")
        return cls(int(number), digest)


@dataclass(frozen=True)
class Bad:
    """The first line that does not hold: its file, its number in that file from 1 on, and what is wrong."""

    file: str
    line: int
    problem: str


@dataclass
class Verdict:
    """What `verify` found. `bad` is None where everything holds.

    first, head   the numbers that the log covers: of its first line, and its last line with its hash
    anchors       signatures that hold; `anchored` is the number of the last line that one of them covers
    events        how many lines there are of each event, `outcomes` of requests and dealt runs by outcome
    resumed       starts after an end without order, such as a crash
    cut           bytes after the last whole line: a role is writing, or crashed and was not started again
    ended         the role ended in order after the last line
    kept          of the lines that were asked for, by number: the hash and the facts
    trusted       anchors' certificates were checked against an authority
    """

    chain: str = ""
    role: str = ""
    files: int = 0
    first: int = 0
    head: Head = field(default_factory=Head)
    anchors: int = 0
    anchored: int = 0
    events: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    ended: bool = False
    trusted: bool = False
    kept: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    bad: Bad | None = None


def digest(line: bytes) -> str:
    """The hash of a line, without its end."""
    return hashlib.sha256(line).hexdigest()


def written(facts: dict[str, Any]) -> bytes:
    """A line, without its end."""
    return json.dumps(facts, separators=(",", ":"), default=str).encode("ascii")


def read(line: bytes) -> dict[str, Any]:
    """The facts of a line. Raises ValueError for anything else."""
    facts = read_own(line.decode("ascii")) if len(line) <= LONGEST else None
    if not isinstance(facts, dict):
        raise ValueError("not a JSON object")
    for name, kind in (("number", int), ("previous", str), ("chain", str), ("role", str), ("time", str),
                       ("event", str)):
        if not isinstance(facts.get(name), kind) or isinstance(facts[name], bool):
            raise ValueError(f"{name!r} is missing or of another type")
    return facts


def same_format(facts: Mapping[str, Any]) -> bool:
    """Whether a line is of this version's format, as far as it says so."""
    return bool(facts.get("format", FORMAT) == FORMAT)


def transcript(facts: Mapping[str, Any]) -> str:
    """The digest of what a request's line binds: the body of the half as it came and of the answer as it went, the
    model, shape, plan, epoch and run, and the numbers of bytes and rounds on the link. Not the messages themselves."""
    return digest(json.dumps(facts, separators=(",", ":"), sort_keys=True).encode("ascii"))


def file_name(number: int) -> str:
    """The name of the file whose first line has this number."""
    return f"audit-{number:012d}{SUFFIX}"


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files of a log in their order, from files and folders. Raises InputError where there is none."""
    found = [file for path in paths for file in (sorted(path.glob(f"audit-*{SUFFIX}")) if path.is_dir() else [path])]
    if not found:
        raise InputError(f"no audit log in {', '.join(map(str, paths))}: its files are named audit-NUMBER{SUFFIX}")
    for file in found:
        if not file.is_file():
            raise InputError(f"{file} does not exist; give the files of an audit log, or its folder")
    return sorted(found, key=lambda file: file.name)


def anchored_text(chain: str, role: str, head: Head) -> str:
    """What an anchor's signature is over."""
    return f"{chain} {role} {head.shown}"


def lines_of(files: Sequence[Path]) -> Iterator[tuple[Path, int, bytes, bool]]:
    """File, number in it, bytes, and whether the line is whole. Lines end with a line feed and nothing else."""
    for file in files:
        with file.open("rb") as opened:
            number = 0
            while raw := opened.readline(LONGEST + 2):
                number += 1
                yield file, number, raw.removesuffix(b"\n"), raw.endswith(b"\n")


class _Problem(Exception):
    """What is wrong with a line, and with which one if it is not the present one."""

    def __init__(self, message: str, place: tuple[Path, int] | None = None):
        super().__init__(message)
        self.place = place


class _Torn:
    """Lines in a row that cannot be read, because a crash cut or garbled them, or because somebody changed them."""

    def __init__(self, place: tuple[Path, int], reason: str):
        self.place, self.reason, self.bytes = place, reason, -1
        self._hash = hashlib.sha256()

    def add(self, raw: bytes) -> None:
        piece = raw if self.bytes < 0 else b"\n" + raw
        self.bytes = max(self.bytes, 0) + len(piece)
        self._hash.update(piece)

    @property
    def facts(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "sha256": self._hash.hexdigest()}


def cut_facts(region: bytes) -> dict[str, Any]:
    """What a resumed line says of the bytes that a crash left behind the last line that can be read."""
    return {"bytes": len(region), "sha256": digest(region)}


class _Reader:
    """Reads a log line by line, and raises _Problem at the first that does not hold."""

    def __init__(self, verdict: Verdict, after: Head, authority: Authority | None, wanted: dict[int, str],
                 kept: Collection[int]):
        self.verdict, self._authority, self._wanted, self._kept = verdict, authority, wanted, kept
        verdict.head = after
        self._torn: _Torn | None = None
        self._file: Path | None = None

    def line(self, file: Path, number: int, raw: bytes, whole: bool) -> None:
        new, self._file = file != self._file, file
        self.verdict.files += new
        try:
            if not whole:
                raise ValueError(CUT)
            facts = read(raw)
        except ValueError as error:
            self._torn = self._torn or _Torn((file, number), str(error))
            self._torn.add(raw)
            return
        self._follows(file, facts, new)
        self._take(raw, facts)

    def _follows(self, file: Path, facts: dict[str, Any], new: bool) -> None:
        v, torn, said = self.verdict, self._torn, facts.get("cut") if facts["event"] == RESUMED else None
        if torn is not None and said != torn.facts:
            raise _Problem(f"it cannot be read ({torn.reason}), and the line after it does not say that a crash left "
                           f"these bytes", torn.place)
        if torn is None and said is not None:
            raise _Problem("it says that a crash left bytes before it, but they are not there")
        self._torn, number = None, v.head.number + 1
        if facts["number"] != number:
            raise _Problem(f"it has number {facts['number']} where {number} belongs: lines were removed, inserted or "
                           f"moved, or earlier files are missing (--after names the last line of those)")
        if facts["previous"] != v.head.digest:
            raise _Problem(f"it does not continue line {v.head.number}: one of the two was changed")
        if v.chain and (facts["chain"], facts["role"]) != (v.chain, v.role):
            raise _Problem(f"it is of chain {facts['chain'][:40]!r} of {facts['role'][:40]!r}, but the log is of "
                           f"{v.chain!r} of {v.role!r}")
        if new and file.name != file_name(number):
            raise _Problem(f"a file that begins with line {number} is named {file_name(number)}, not {file.name}")

    def _take(self, raw: bytes, facts: dict[str, Any]) -> None:
        v = self.verdict
        if not same_format(facts):
            raise _Problem(f"it has the format {str(facts['format'])[:40]!r}, but this version checks {FORMAT!r}")
        if "signature" in facts or facts["event"] == ANCHOR:
            self._anchor(facts)
        v.chain, v.role = facts["chain"], facts["role"]
        v.head = Head(facts["number"], digest(raw))
        if v.head.number in self._kept:
            v.kept[v.head.number] = v.head.digest, facts
        v.first = v.first or v.head.number
        v.events[facts["event"]] += 1
        v.ended = facts["event"] == ENDED
        if facts["event"] in (REQUEST, DEALT):
            v.outcomes[str(facts.get("outcome"))] += 1
        if self._wanted.pop(v.head.number, v.head.digest) != v.head.digest:
            raise _Problem(f"line {v.head.number} has hash {v.head.digest}, but another one was noted elsewhere: the "
                           f"log was written anew")

    def _anchor(self, facts: dict[str, Any]) -> None:
        v = self.verdict
        try:
            signed = Signed(str(facts["signature"]), str(facts["certificate"]))
            require_signature(signed, ANCHOR, anchored_text(facts["chain"], facts["role"], v.head))
            if role_in(signed.certificate) != facts["role"]:
                raise AuthError(f"the anchor is signed by {role_in(signed.certificate)}")
            if self._authority is not None:
                self._authority.require(signed.certificate, facts["role"], datetime.fromisoformat(facts["time"]))
        except (KeyError, ValueError, TypeError) as error:
            raise _Problem(f"the anchor cannot be read ({type(error).__name__}: {error})") from error
        except AuthError as error:
            raise _Problem(f"the anchor does not hold: {error}") from error
        v.anchors += 1
        v.anchored = v.head.number

    def end(self) -> None:
        v = self.verdict
        if self._torn is not None:
            if self._torn.reason != CUT:
                raise _Problem(f"it cannot be read ({self._torn.reason})", self._torn.place)
            v.cut = self._torn.bytes
        if self._wanted:
            raise _Problem(f"line {min(self._wanted)}, which was noted elsewhere, is not in the log, which ends with "
                           f"line {v.head.number}: its end was removed, or a crash lost it")


def verify(paths: Sequence[Path], *, after: Head | None = None, heads: Sequence[Head] = (),
           authority: Authority | None = None, kept: Collection[int] = ()) -> Verdict:
    """Checks a log: its files, or its folder.

    after      the last line before these files, where older files are kept elsewhere; default: the log begins with 1
    heads      lines that were noted elsewhere, and that the log must have with these hashes
    authority  whose certificates the anchors must have; without it, only their signatures are checked
    kept       numbers of lines whose hashes and facts the verdict shall hold

    Raises InputError where there is no such file, OSError where one cannot be read.
    """
    files, verdict = files_of(paths), Verdict(trusted=authority is not None)
    wanted: dict[int, str] = {}
    for head in heads:
        if wanted.setdefault(head.number, head.digest) != head.digest:
            raise InputError(f"two hashes are given for line {head.number}; a log has one")
    reader = _Reader(verdict, after or Head(), authority, wanted, kept)
    file, number = files[0], 0
    try:
        for file, number, raw, whole in lines_of(files):
            reader.line(file, number, raw, whole)
        reader.end()
    except _Problem as problem:
        where, line = problem.place or (file, number)
        verdict.bad = Bad(str(where), line, str(problem))
    return verdict
