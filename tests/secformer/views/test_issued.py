"""Certificates that were issued."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from views_lab import printed, rows

from secformer.roles.certificates import Issued
from secformer.views.issued import issued, issued_json

ONE = Issued("client", "alice", Path("certs/alice/alice.pem"), datetime(2030, 1, 2, 3, 4, tzinfo=UTC))


def test_a_row_per_certificate_and_what_to_do() -> None:
    view = issued([ONE], "copy it")
    assert rows(view)[1] == ["client", "alice", "certs/alice/alice.pem", "2030-01-02"]
    assert printed(view).rstrip().endswith("copy it")


def test_json() -> None:
    assert issued_json([ONE]) == {"certificates": [{
        "role": "client", "name": "alice", "certificate": "certs/alice/alice.pem",
        "until": "2030-01-02T03:04:00+00:00"}]}
