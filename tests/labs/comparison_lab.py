"""A comparison of three recipes, one of which cannot run, for the tests of its parts and of how it is shown."""

from __future__ import annotations

from dataclasses import replace

from secformer import demo_model
from secformer.models.run.comparison import Comparison, compare
from secformer.mpc.errors import RangeError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.ranges import Site
from secformer.protocols.recipes import FAITHFUL, SECFORMER

TEXTS = ["A wonderful film.", "I want <b>my</b> two hours & this script's author back."]


def refusing(s: Session, x: Share, at: Site) -> Share:
    raise RangeError("this GeLU takes nothing below 0, got -3; use another")


def three_recipes() -> Comparison:
    """On the shipped model, which was distilled for SecFormer's functions."""
    broken = replace(FAITHFUL, name="brok<en", gelu=refusing)
    return compare(demo_model(), TEXTS, [FAITHFUL, SECFORMER, broken], runs=1)
