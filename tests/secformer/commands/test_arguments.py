"""Help texts name what the code has: they are texts of their own, so that --help needs no NumPy."""

from __future__ import annotations

import re

import pytest
from commands_lab import help_of

from secformer.commands.arguments import BACKEND, RECIPE
from secformer.mpc.backend import BACKENDS
from secformer.protocols.recipes import EXACT, RECIPES

ON_SHARES = {name for name, recipe in RECIPES.items() if recipe is not EXACT}


def test_the_help_names_every_recipe_that_runs_on_shares() -> None:
    named = {name for names in re.findall(r"(?:^|; )([a-z0-9_, ]+):", RECIPE) for name in names.split(", ")}
    assert named == ON_SHARES | {"auto"}


def test_the_help_names_every_backend() -> None:
    assert set(re.split(r"[ ,()]+", BACKEND.partition(": ")[2])) - {"default", "or"} == set(BACKENDS)


@pytest.mark.parametrize("command", ["demo", "infer", "check", "profile", "evaluate", "provision", "up"])
def test_every_command_with_a_recipe_explains_it_the_same_way(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert RECIPE in " ".join(help_of(capsys, command).split())
