"""What audit logs and receipts add to a served request: everything on against everything off, asked in turns.

    python bench/served_audit.py [--pairs N] [--words N]

Two measurements. *Parts*: the code that a request runs for its records, timed by itself, with bodies as large as those
of a BERT_BASE request of 128 tokens: the digests of both bodies, the line of the log and the signature at a party, and
the check of both receipts at the client. *Pairs*: two sets of roles that run at the same time on this machine and serve
the shipped model; one question goes to each in turn, and every answer is compared with the other side's. On a machine
that others use, pairs are noisy; parts are not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from report import RESULTS, record

from secformer import connect, demo_model
from secformer.mpc.meter import Meter
from secformer.mpc.net.credentials import Credentials
from secformer.mpc.net.tls import Identity
from secformer.mpc.prg import fresh_seed
from secformer.roles.audit import Audit
from secformer.roles.entries import Entries
from secformer.roles.kept_receipts import Receipts
from secformer.roles.messages import Answer, Exchanged, Half, Ran, body_digest
from secformer.roles.receipts import HEADER
from secformer.roles.signing import Signer
from secformer.roles.trial import LocalRoles

FASTEST = 1.7     # seconds of a served BERT_BASE request of 128 tokens, at best
MOST = 0.02       # share of it that all hardening may take
BESIDE = RESULTS / "served-overhead-base-128.json"  # has the bytes between the parties of such a request
HALF_BYTES = 1 << 17    # about the body of half such a request
ANSWER_BYTES = 3 << 18  # and of half its answer, with all hidden states
ROUNDS = 200            # of the parts
ID, MODEL = "ab" * 16, "cd" * 32
PARTIES = {"backend": "numpy", "threads": 1}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--words", type=int, default=6, help="words of the question")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as at:
        result = measured(Path(at), args.pairs, "fine " * args.words)
    print(json.dumps(result, indent=1))
    record("served-audit", result, args.out)
    return 0


def measured(folder: Path, pairs: int, text: str) -> dict[str, Any]:
    receipts = folder / "receipts.jsonl"
    with ExitStack() as ends:
        on, off = (ends.enter_context(roles) for roles in (served(folder / "on", True), served(folder / "off", False)))
        for roles in (on, off):
            roles.wait_ready()
        audited = ends.enter_context(connect(on.settings("client"), receipts=receipts))
        bare = ends.enter_context(connect(off.settings("client")))
        for model in (audited, bare):
            model.infer(text)
        seconds: tuple[list[float], list[float]] = ([], [])
        costs: list[tuple[int, int]] = []
        for pair in range(pairs):
            sides = [(0, audited), (1, bare)][:: 1 if pair % 2 else -1]
            found = {}
            for side, model in sides:
                started = time.perf_counter()
                found[side] = model.infer(text)
                seconds[side].append(time.perf_counter() - started)
            if found[0].labels != found[1].labels or np.abs(found[0].logits - found[1].logits).max() > 0.01:
                raise SystemExit("the two sides answer differently")
            costs.append((found[0].cost.bytes, found[1].cost.bytes))
        logs = {role: size(on.role_folder(role) / "audit") for role in ("party0", "party1", "dealer")}
    headers = statistics.median(sum(4 * len(json.dumps(each)) / 3 for each in json.loads(line)["receipts"])
                                for line in receipts.read_text().splitlines())
    added = [mine - theirs for mine, theirs in zip(*seconds, strict=True)]
    found_parts = parts(folder / "on" / "roles", folder / "parts")
    pays = sum(found_parts.values())
    between = json.loads(BESIDE.read_text())["online_bytes"]
    return {
        "parts, ms": {name: 1000 * each for name, each in found_parts.items()}, "a request pays, ms": 1000 * pays,
        "share of a BERT_BASE request of 128 tokens": pays / FASTEST, "allowed": MOST,
        "pairs": {"count": pairs, "seconds on": statistics.median(seconds[0]),
                  "seconds off": statistics.median(seconds[1]),
                  "ratio, median": statistics.median(a / b for a, b in zip(*seconds, strict=True)),
                  "difference, ms, quartiles": [1000 * each for each in statistics.quantiles(added)]},
        "bytes between the parties": {"on": costs[0][0], "off": costs[0][1]},
        "bytes of both receipts on the wire": headers, "their share of a BERT_BASE request's bytes": headers / between,
        "bytes of log per request": {role: total / (pairs + 1) for role, total in logs.items()},
    }


def parts(roles: Path, folder: Path) -> dict[str, float]:
    """Seconds of what a request runs for its records: at a party (both work at the same time), and at its client."""
    def identity(role: str) -> Identity:
        return Identity(*(roles / role / name for name in ("authority.pem", f"{role}.pem", f"{role}.key")))

    half_body, answer_body = fresh_seed() * (HALF_BYTES // 32), fresh_seed() * (ANSWER_BYTES // 32)
    halves = [Half(ID, MODEL, np.array([128]), np.ones((1, 128), bool), seed=bytes(32), digest=body_digest(half_body))
              for _ in range(2)]
    answer = Answer({}, 16, Meter().close(0.0), Ran("epoch", "live/1", MODEL, MODEL, 0.0, 0.0, 0.0))
    audits = [Audit(folder / f"party{rank}", f"party{rank}", Signer(identity(f"party{rank}")), required=True,
                    file_bytes=64 << 20) for rank in (0, 1)]
    entries = [Entries(f"party{rank}", MODEL, audit, Signer(identity(f"party{rank}")))
               for rank, audit in enumerate(audits)]
    client = Receipts(identity("client"), Credentials(identity("client")).objection, folder / "receipts.jsonl")
    at_party, at_client = [], []
    for _ in range(ROUNDS):
        answers = []
        for rank in (0, 1):
            started = time.perf_counter()
            body_digest(half_body)
            entry = entries[rank].begin("client")
            entry.half = halves[rank]
            header = entry.answered(answer, answer_body)[HEADER]
            at_party.append(time.perf_counter() - started)
            answers.append(replace(answer, exchanged=Exchanged(halves[rank].digest, body_digest(answer_body), header)))
        started = time.perf_counter()
        body_digest(answer_body)
        client.take(halves, answers, MODEL)
        at_client.append(time.perf_counter() - started)
    for audit in audits:
        audit.close()
    return {"a party": statistics.median(at_party), "the client": statistics.median(at_client)}


def served(folder: Path, audited: bool) -> LocalRoles:
    """The shipped model's roles, with everything on or off."""
    settings = PARTIES | ({} if audited else {"audit": "off", "receipts": False})
    roles = LocalRoles(folder, demo_model(), settings=settings)
    if not audited:
        file = roles.settings("dealer")
        file.write_text(file.read_text().replace('# audit = "required"', 'audit = "off"'))
    return roles


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.jsonl"))


if __name__ == "__main__":
    sys.exit(main())
