"""A client's receipts: checked against what it sent and received, and kept in a file of JSON lines.

A line is {"received", "receipts": [party 0's, party 1's]}, each receipt with its statement, signature and certificate.
Whoever has the file can check it without the client, and compare it with the parties' audit logs.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from secformer.mpc.errors import AuthError, InputError, ProtocolError, SettingsError, StoreError
from secformer.mpc.net.tls import Certificate, Identity
from secformer.mpc.strict_json import read_own
from secformer.roles import chain
from secformer.roles.messages import Answer, Half
from secformer.roles.receipts import LINE_FACTS, PARTIES, Receipt, Statement, checked, require_facts, require_pair
from secformer.roles.signing import Authority, name_in

LONGEST = 1 << 16  # characters of a line


class Receipts:
    """Checks the receipts that come with answers, and keeps them. Thread-safe.

    identity   the client's, whose authority must have issued the parties' certificates
    objection  why a certificate does not hold now, "" if it does
    file       where they are kept, and then every answer must have one; None: they are checked if they come

    Raises SettingsError for a file that cannot be written.
    """

    def __init__(self, identity: Identity, objection: Callable[[Certificate | None], str], file: Path | None):
        self._identity, self._objection, self._file = identity, objection, file
        self._lock = threading.Lock()
        if file is not None:
            try:
                os.close(self._opened(file))
            except OSError as error:
                raise SettingsError(f"receipts cannot be kept in {file}: {error.strerror}; give a file that can be "
                                    f"written") from error

    def take(self, halves: Sequence[Half], answers: Sequence[Answer], model: str) -> None:
        """Checks the parties' receipts of one answer, and keeps them. Raises AuthError where one does not hold,
        ProtocolError where one is missing that is to be kept, StoreError where the file cannot be written."""
        receipts, said = [], []
        for party, half, answer in zip(PARTIES, halves, answers, strict=True):
            if (exchanged := answer.exchanged) is None or exchanged.receipt is None:
                if self._file is not None:
                    raise ProtocolError(f"{party} sent no receipt with its answer; its operator can turn receipts on "
                                        f"(receipts = true)")
                continue
            receipts.append(Receipt.from_header(exchanged.receipt))
            said.append(checked(receipts[-1], party, Authority(self._identity.authority), self._objection))
            require_facts(said[-1], {"request": half.request, "client": name_in(self._identity.certificate),
                                     "model": model, "shape": half.shape_digest, "half": exchanged.half,
                                     "answer": exchanged.answer})
        if len(said) == len(PARTIES):
            require_pair(*said)
        if self._file is not None:
            self._keep(self._file, receipts)

    def _keep(self, file: Path, receipts: Sequence[Receipt]) -> None:
        line = json.dumps({"received": datetime.now(UTC).isoformat(timespec="milliseconds"),
                           "receipts": [receipt.as_dict() for receipt in receipts]}, separators=(",", ":"))
        try:
            with self._lock, os.fdopen(self._opened(file), "ab") as out:
                out.write(line.encode("ascii") + b"\n")
        except OSError as error:
            raise StoreError(f"the request was answered, but its receipt cannot be kept in {file}: {error.strerror}; "
                             f"make room on the disk") from error

    @staticmethod
    def _opened(file: Path) -> int:
        return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


# ---- checking a file -------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What `verify` found. `bad` is None where everything holds, else the first line that does not.

    receipts  pairs that hold
    found     by party, how many receipts have their line in the log that was given
    trusted   the certificates were checked against an authority
    """

    receipts: int = 0
    found: dict[str, int] = field(default_factory=dict)
    trusted: bool = False
    bad: chain.Bad | None = None


def pair_of(line: str) -> list[Receipt]:
    """The two receipts of a line of the file. Raises AuthError."""
    try:
        if len(line) > LONGEST:
            raise ValueError(f"it has more than {LONGEST} characters")
        given = read_own(line)
        if not isinstance(given, dict) or not isinstance(given.get("receipts"), list):
            raise ValueError('it must be an object with "receipts"')
    except ValueError as error:
        raise AuthError(f"it cannot be read ({error})") from error
    if len(given["receipts"]) != len(PARTIES):
        raise AuthError(f"it must have the receipts of party 0 and of party 1, got {len(given['receipts'])}")
    return [Receipt.from_dict(each) for each in given["receipts"]]


def verify(files: Sequence[Path], *, authority: Authority | None = None,
           logs: Sequence[Sequence[Path]] = ()) -> Verdict:
    """Checks files of receipts.

    authority  whose certificates the receipts must have; without it, only signatures are checked
    logs       the parties' audit logs, each as its files or its folder, whole: they must have the receipts' lines

    Raises InputError for a file that does not exist, and for a log that is not a party's; OSError.
    """
    verdict = Verdict(trusted=authority is not None)
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} does not exist; give a file of receipts, which `--receipt` writes")
    places: list[tuple[str, int, list[Statement]]] = []
    for file in files:
        for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), 1):
            try:
                said = [checked(receipt, party, authority)
                        for party, receipt in zip(PARTIES, pair_of(line), strict=True)]
                require_pair(*said)
            except AuthError as error:
                verdict.bad = chain.Bad(str(file), number, str(error))
                break
            places.append((str(file), number, said))
        if verdict.bad is not None:
            break
    verdict.receipts = len(places)
    _compare(verdict, places, logs, authority)
    return verdict


def _compare(verdict: Verdict, places: Sequence[tuple[str, int, list[Statement]]], logs: Sequence[Sequence[Path]],
             authority: Authority | None) -> None:
    """Looks for each receipt's line in the logs. What is bad before the first bad receipt comes first."""
    wanted = {said.line for _, _, pair in places for said in pair}
    for paths in logs:
        log = chain.verify(paths, authority=authority, kept=wanted)
        if log.bad is not None:
            verdict.bad = verdict.bad or log.bad
            return
        if log.role not in PARTIES:
            raise InputError(f"{paths[0]} is the audit log of {log.role}; receipts are in the logs of party 0 and "
                             f"party 1")
        found = 0
        for place, (file, number, pair) in enumerate(places):
            try:
                _require_line(pair[PARTIES.index(log.role)], log)
            except AuthError as error:
                verdict.bad, places = chain.Bad(file, number, str(error)), places[:place]
                verdict.receipts = place
                break
            found += 1
        verdict.found[log.role] = found


def _require_line(said: Statement, log: chain.Verdict) -> None:
    """Raises AuthError unless the log has the line that the receipt names, and it says the same."""
    where = f"line {said.line} of chain {said.chain[:40]!r}, which the receipt of {said.party} names,"
    if not said.line:
        raise AuthError(f"the receipt of {said.party} names no line: the party kept no audit log then")
    if said.chain != log.chain or said.line not in log.kept:
        raise AuthError(f"{where} is not in the log, which is of chain {log.chain!r} and ends with line "
                        f"{log.head.number}")
    digest, facts = log.kept[said.line]
    if digest != said.hash:
        raise AuthError(f"{where} has another hash in the log, which was written anew")
    if odd := [name for name in LINE_FACTS if facts.get(name) != getattr(said, name)] or _odd_shape(said, facts):
        raise AuthError(f"{where} says another {odd[0]} than the receipt")


def _odd_shape(said: Statement, facts: Mapping[str, Any]) -> list[str]:
    shape = facts.get("shape")
    return [] if isinstance(shape, dict) and shape.get("digest") == said.shape else ["shape"]
