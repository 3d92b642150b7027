"""How descriptors are divided, for any limit, and in a process that really has few."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from links_lab import identity

from secformer.mpc.errors import SettingsError
from secformer.mpc.net.listener import PEERS, TURNED_AWAY
from secformer.roles.descriptors import BASE, LEAST, MONITORING, SPARE, TOLD, dealer_room, party_room, raise_limit
from secformer.roles.origins import Browsers
from secformer.roles.settings import PartySettings


def settings(rank: int = 0, **changes: Any) -> PartySettings:
    here = ("127.0.0.1", 0)
    return PartySettings(rank, Path("m"), Path("s"), here, here, here, identity(Path(), "party0"), **changes)  # type: ignore[arg-type]


@given(st.integers(1, 100_000), st.integers(1, 5000), st.integers(1, 8), st.sampled_from([0, 1]), st.booleans())
def test_what_is_given_out_is_there(descriptors: int, queue: int, in_flight: int, rank: int, pages: bool) -> None:
    """All parts together never exceed the limit, or the role does not start. Each port for clients has strangers."""
    browsers = Browsers(("127.0.0.1", 0), ["https://page.example"]) if pages else None
    try:
        room = party_room(settings(rank, queue=queue, in_flight=in_flight, browsers=browsers), descriptors)
    except SettingsError as error:
        assert descriptors < 1024 and str(descriptors) in str(error) and "LimitNOFILE" in str(error)
        return
    link = room.strangers + PEERS + TURNED_AWAY if rank == 0 else in_flight + 1
    assert BASE + 2 * in_flight + link + (1 + pages) * room.strangers + MONITORING + TOLD + room.clients <= descriptors
    assert min(LEAST, queue + SPARE) <= room.clients <= queue + SPARE


def test_the_usual_limit_serves_hundreds_of_clients() -> None:
    assert party_room(settings(), 1024).clients >= 400 and party_room(settings(), 1024).strangers == 128
    assert party_room(settings(), 65536).clients == 1000 + SPARE
    assert dealer_room(1024).strangers == 128
    with pytest.raises(SettingsError, match=r"needs 2\d\d open files and connections, but the system allows 100"):
        dealer_room(100)


@pytest.mark.parametrize(("soft", "hard", "then"), [(256, 1024, 1024), (1024, 1024, 1024)])
def test_a_soft_limit_is_raised(soft: int, hard: int, then: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("this system allows fewer descriptors")
    script = (f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
              "from secformer.roles.descriptors import raise_limit\n"
              "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(then), str(then), str(hard)]


def test_raising_twice_is_raising_once() -> None:
    assert raise_limit() == raise_limit() > 0
