"""The ways of an exact matrix product, and which is fastest for a shape, by a table that `bench/gpu.py` measures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from secformer.mpc.kernels.words import whole_bytes

BYTES, FLOAT64, INTEGER = "bytes", "float64", "integer"
WAYS = (BYTES, FLOAT64, INTEGER)
BYTE_UNITS = 80            # first compute capability whose tensor cores take the byte product
WORTH_SPLITTING = 1 << 22  # multiplications of words from which splitting into bytes is taken to pay
LEAST_INNER = 32           # inner steps below which a stage of the byte product is mostly padding
TABLE = "products.json"


@dataclass(frozen=True)
class Product:
    """(n, k) @ (k, m) modulo 2^bits, `batch` times."""

    batch: int
    n: int
    k: int
    m: int
    bits: int = 64

    @property
    def work(self) -> int:
        """Multiplications of words."""
        return self.batch * self.n * self.k * self.m

    def distance(self, other: Product) -> float:
        """How unlike two shapes are: differences of logarithms, and of the bytes of a word."""
        pairs = ((self.batch, other.batch), (self.n, other.n), (self.k, other.k), (self.m, other.m))
        return sum(abs(math.log2(a / b)) for a, b in pairs) + abs(digits(self.bits) - digits(other.bits))


def product_of(a: Any, b: Any, bits: int) -> Product:
    """Of words a (..., n, k) and b (..., k, m)."""
    (n, k), m = a.shape[-2:], b.shape[-1]
    return Product(math.prod(a.shape[:-2]), n, k, m, min(bits, 32) if a.dtype == np.uint32 else bits)


class Choice:
    """The fastest way by the nearest measured shape, or a documented default where nothing near was measured.

    Default: bytes on devices that have byte units and for products worth splitting, else the integer units. float64 is
    only taken where it was measured to win.
    """

    def __init__(self, capability: int, measured: Iterable[tuple[Product, str]] = (), near: float = 4.0):
        self.capability, self.near = capability, near
        self._chosen: dict[Product, str] = {}
        self.measured = [(shape, way) for shape, way in measured if way in WAYS and self.possible(way)]

    def possible(self, way: str) -> bool:
        return way != BYTES or self.capability >= BYTE_UNITS

    def __call__(self, shape: Product) -> str:
        if shape not in self._chosen:  # the same shapes come with every run
            self._chosen[shape] = self._choose(shape)
        return self._chosen[shape]

    def _choose(self, shape: Product) -> str:
        if not shape.work:
            return INTEGER
        nearest = min(self.measured, key=lambda row: row[0].distance(shape), default=None)
        if nearest is not None and nearest[0].distance(shape) <= self.near:
            return nearest[1]
        worth = shape.work >= WORTH_SPLITTING and shape.k >= LEAST_INNER
        return BYTES if worth and self.possible(BYTES) else INTEGER


def digits(bits: int) -> int:
    """Bytes of a word that a product modulo 2^bits needs; the byte kernels come in 4 to 8."""
    return max(4, whole_bytes(bits))


def recorded(device: str) -> list[tuple[Product, str]]:
    """What was measured on a device of that name, as far as the package has it."""
    path = files(__package__).joinpath(TABLE)
    tables = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return [(Product(**row["product"]), row["fastest"]) for row in tables.get(device, [])]
