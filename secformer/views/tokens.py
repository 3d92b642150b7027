"""A client's tokens for pages in browsers, for `token`."""

from __future__ import annotations

from datetime import UTC, datetime

from secformer.roles.tokens import Pair


def tokens(made: Pair) -> str:
    """Each party's token, whole on a line of its own, and until when both hold."""
    return (f"party0 {made.party0}\nparty1 {made.party1}\n"
            f"expires {datetime.fromtimestamp(made.expires, UTC):%Y-%m-%d %H:%M:%S} UTC")
