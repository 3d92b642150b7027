"""The format of the messages between clients and parties, which both compare before a half of a request is sent.

Versions of the package may differ between a client and a cell if their formats are the same. The roles of one cell run
one version: see `link` and `asks`.
"""

from __future__ import annotations

from typing import Any

from secformer.mpc.errors import ProtocolError
from secformer.mpc.strict_json import read_own
from secformer.roles.messages import ANSWER, REQUEST
from secformer.roles.receipts import VERSION
from secformer.version import __version__

FORMAT = f"{REQUEST}, {ANSWER}, receipt {VERSION}"  # each is raised when what it names changes
MOST_SHOWN = 120  # characters of what a party says that an error repeats


def hello() -> dict[str, str]:
    """What a party tells on each new connection of a client."""
    return {"version": __version__, "format": FORMAT}


def require_format(said: bytes, party: str) -> None:
    """Raises ProtocolError if a party's hello names another format."""
    try:
        facts: Any = read_own(said)
        theirs, version = facts.get("format"), facts.get("version")
    except (ValueError, AttributeError) as error:
        raise ProtocolError(f"{party} did not say which version it runs ({error}); is it a party?") from error
    if theirs != FORMAT:
        raise ProtocolError(
            f"{party} runs version {str(version)[:MOST_SHOWN]}, whose messages have the format "
            f"{str(theirs)[:MOST_SHOWN]!r}, but this client is version {__version__}, with the format {FORMAT!r}. "
            f"Nothing was sent. Install the parties' version here, or ask parties of this client's format")
