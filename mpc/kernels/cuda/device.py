"""The GPU that kernels are made for, and the sources that they are made from: the *.cu files beside this."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

OPTIONS = ("--std=c++17", "-fmad=false")
SOURCES = {
    "words": ("pack", "pack_narrow", "unpack", "unpacked_all", "opened", "unseal", "added", "wraps", "lifted",
              "rounded_up"),
    "multiply": ("multiplied", "product_terms"),
    "random": ("keystream", "uniform", "seal", "combined", "correction", "correction_xor", "shares", "corrections",
               "weigh", "claim_keys"),
    "series": ("turn", "harmonics", "series"),
    "powers": ("growth", "powers", "exponential"),
    "compare": ("flip_bits", "look_up", "outcome", "pick", "below", "signs", "reaching", "gather", "outcome_rows",
                "outcome_tables"),
    "points": ("points",),
    "guard": ("guard_tables", "breaches", "row_xors"),
    "integer": ("integer64", "integer32"),
    "limbs": ("limbs64", "limbs32", "joined64", "joined32"),
    "digits": ("split_rows64", "split_rows32", "split_columns64", "split_columns32",
               "digits4", "digits5", "digits6", "digits7", "digits8"),
}


@dataclass(frozen=True)
class Device:
    """The GPU that kernels are made for: its name, its compute capability (90 for 9.0), and what compiles a source
    file into an object with `get_function(name)`."""

    name: str
    capability: int
    module: Callable[[str], Any]


def current_device() -> Device:
    """The GPU that this thread uses, through CuPy."""
    cupy = importlib.import_module("cupy")
    number = cupy.cuda.runtime.getDevice()
    facts = cupy.cuda.runtime.getDeviceProperties(number)
    return Device(facts["name"].decode(), 10 * facts["major"] + facts["minor"],
                  lambda file: cupy.RawModule(code=source(file), options=OPTIONS))


def source(file: str) -> str:
    """A kernel file with its headers in place, so that a compiler's cache sees a change of either."""
    return header(f"{file}.cu")


def header(name: str) -> str:
    """One of the files beside this, with what it includes in place."""
    text = files(__package__).joinpath(name).read_text("utf-8")
    return re.sub(r'^#include "([\w.]+)"$', lambda found: header(found[1]), text, flags=re.MULTILINE)
