"""A client's tokens for pages in browsers, for `token`."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from secformer.roles.tokens import Pair


def tokens(made: Pair) -> RenderableType:
    """Each party's token on a line of its own, whole, and until when both hold."""
    until = datetime.fromtimestamp(made.expires, UTC)
    lines = (f"party0 {made.party0}", f"party1 {made.party1}", f"expires {until:%Y-%m-%d %H:%M:%S} UTC")
    return Group(*(Text(line, no_wrap=True, overflow="ignore") for line in lines))
