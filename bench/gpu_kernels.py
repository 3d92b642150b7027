"""All CUDA kernels except the matrix products: compared with NumPy, then timed against the device's ceilings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from secformer.mpc.kernels import Kernels
from secformer.mpc.kernels.points import LEAF, PointKeys, depth
from secformer.mpc.kernels.words import TERMS, Factor, Mask, Masked, Piece
from secformer.mpc.points import keys_of
from secformer.mpc.prg import Stream

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
HARMONICS, TURN_BITS, BLOCK_BITS, WINDOW, BLOCKS = 20, 24, 8, 24, 3
ENTRIES = 1 << (2 * BLOCKS - 1)
CHACHA = 976 / 64          # 32-bit operations per byte: 80 quarter rounds of 12, and 16 additions, for 64 bytes
TURN, HARMONIC = 40, 11    # float64 operations of a turn, and of a harmonic and its rounding
GROWTH, ENTRY = 30, 3      # float64 operations of a power of e, and of scaling and rounding it
VOCABULARY = 30_522        # words of a token's row
THRESHOLDS = 6             # with which a value of eight bits is compared at once
# shift, low, span: of an opening of 40 bits
GUARDS = (17, 5 << 16, 3 << 20), (24, 9 << 20, 3 << 20), (34, 9 << 20, 3 << 20)
PERIOD, POWERS = 6, 4      # bits of a period of e, and entries of its table
Arrays = Mapping[str, Any]
SHRINK = 1                 # divides all sizes


@dataclass(frozen=True)
class Case:
    """One kernel on n elements.

    inputs   makes the kernel's arrays on the host
    run      calls the kernel
    moved    bytes per element that must pass through device memory: every input is read once, every output written once
    work     operations per element, of the kind `unit` (a ceiling's name; empty: only memory counts)
    size     number of elements to time
    """

    name: str
    inputs: Callable[[np.random.Generator, int], dict[str, np.ndarray]]
    run: Callable[[Kernels, Arrays, int], Any]
    moved: float
    work: float = 0.0
    unit: str = ""
    size: int = 1 << 24


def cases() -> list[Case]:
    cos, sin = np.random.default_rng(0).normal(size=(2, 1, HARMONICS))
    row = 1 << (BLOCK_BITS - 3)
    return [
        Case("keystream", nothing, lambda k, a, n: k.keystream(KEY, 0, 8 * n), 8, 8 * CHACHA, "numbers"),
        Case("uniform, 64 bits", nothing, lambda k, a, n: k.uniform(KEY, 0, n, 64), 8, 8 * CHACHA, "numbers"),
        Case("uniform, 24 bits", nothing, lambda k, a, n: k.uniform(KEY, 0, n, 24), 8, 3 * CHACHA, "numbers"),
        Case("seal, 48 bits", words("x"), sealed, 14, 6 * CHACHA, "numbers"),
        Case("shares, 48 bits, in two", nothing, lambda k, a, n: tuple(k.shares((KEY, OTHER), halves(n))), 8,
             6 * CHACHA, "numbers"),
        Case("corrections, 48 bits, in two", words("x"), corrected, 14, 6 * CHACHA, "numbers"),
        Case("unpacked, 48 bits, in two", payload(48), lambda k, a, n: tuple(k.unpacked(a["payload"], halves(n))), 14),
        Case("combined, 48 bits", nothing, lambda k, a, n: k.combined([(KEY, OTHER)], [Mask(n, 48)])[0], 8,
             12 * CHACHA, "numbers"),
        Case("correction, 48 bits", words("x"), lambda k, a, n: k.correction(KEY, a["x"], 48), 14, 6 * CHACHA,
             "numbers"),
        Case("correction of bytes", bytes_, lambda k, a, n: k.correction(KEY, a["x"], 8, True), 2, CHACHA, "numbers"),
        Case("points, rows of 30,522 words", nothing, expanded, 8, 64 / LEAF * (2 + depth(VOCABULARY)) * CHACHA,
             "numbers", 128 * VOCABULARY),
        Case("pack, 24 bits", words("x"), lambda k, a, n: k.pack(a["x"], 24), 11),
        Case("pack, 48 bits", words("x"), lambda k, a, n: k.pack(a["x"], 48), 14),
        Case("unpack, 48 bits", payload(48), lambda k, a, n: k.unpack(a["payload"], n, 48), 14),
        Case("opened, 48 bits", payload(48), lambda k, a, n: k.opened(a["x"], a["payload"], 48), 22),
        Case("unseal, 48 bits", payload(48),
             lambda k, a, n: tuple(k.unseal([(a["x"], 48)], k.pack(a["x"], 48), a["payload"])), 34),
        Case("added, one moved", words("x", "y"), lambda k, a, n: k.added(a["x"], 9, a["y"], 0, True), 24),
        Case("dropped, rounding up", words("x"), lambda k, a, n: k.dropped(a["x"], 16, True), 16),
        Case(f"guard_tables, {len(GUARDS)}", words("r", bits=40), lambda k, a, n: k.guard_tables(a["r"], GUARDS),
             8 + 8 * len(GUARDS), size=1 << 22),
        Case(f"breaches, {len(GUARDS)}", guard_inputs,
             lambda k, a, n: k.breaches(a["tables"], a["u"], [shift for shift, _, _ in GUARDS], a["weights"], 1),
             8 + 16 * len(GUARDS), size=1 << 22),
        Case(f"weigh, {len(GUARDS)} (and a copy)", guard_inputs, weighed, 8 + 8 * len(GUARDS), 8 * len(GUARDS) * CHACHA,
             "numbers", 1 << 22),
        Case("wraps", words("r", bits=27), lambda k, a, n: k.wraps(a["r"], 26), 24),
        Case("lifted", lifts, lambda k, a, n: k.lifted(a["u"], Masked(*[a["rest"]] * 3), a["wraps"], 26, True), 32),
        Case("multiplied, both lifted", factors, multiplied, 72),
        Case("product_terms, both lifted", words("r", "s", bits=27),
             lambda k, a, n: tuple(k.product_terms((a["r"], a["s"]), (26, 26), TERMS)), 48),
        Case("turn", words("u", bits=TURN_BITS), lambda k, a, n: k.turn(a["u"], TURN_BITS), 24, TURN, "doubles"),
        Case(f"harmonics, {HARMONICS}", words("u", bits=TURN_BITS),
             lambda k, a, n: k.harmonics(a["u"], TURN_BITS, HARMONICS, 20), 8 + 16 * HARMONICS,
             TURN + HARMONICS * HARMONIC, "doubles", 1 << 21),
        Case(f"series, {HARMONICS} harmonics", series_inputs,
             lambda k, a, n: k.series(a["u"], TURN_BITS, cos, sin, a["words"].reshape(2 * HARMONICS, n), 18),
             16 + 16 * HARMONICS, TURN + HARMONICS * (HARMONIC + 5), "doubles", 1 << 21),
        Case("growth", words("v", bits=TURN_BITS - PERIOD + 4),
             lambda k, a, n: k.growth(a["v"], TURN_BITS - PERIOD), 16, GROWTH, "doubles"),
        Case(f"powers, {POWERS}", words("r", bits=TURN_BITS),
             lambda k, a, n: k.powers(a["r"], TURN_BITS, PERIOD, 1 << 16, 41), 8 + 8 * POWERS,
             GROWTH + POWERS * ENTRY, "doubles", 1 << 22),
        Case("exponential", exponential_inputs,
             exponential, 24,
             GROWTH + ENTRY, "doubles", 1 << 22),
        Case("flip_bits", tables(row), flipped, 10, size=1 << 22),
        Case("look_up", tables(row), lambda k, a, n: k.look_up(a["rows"].reshape(n, row), a["v"]), row + 10,
             size=1 << 22),
        Case("outcome (and a copy)", tables(row), looked_up, row + 40, size=1 << 22),
        Case("gather, 2 columns", gather_inputs,
             lambda k, a, n: k.gather(a["entries"].reshape(n, ENTRIES, 2), a["e"]), 32 + 8 + 16, size=1 << 20),
        Case("pick (and a copy)", tables(1), picked, 33, size=1 << 22),
        Case(f"below, {THRESHOLDS} thresholds", threshold_inputs, below_all, 16 + 8 + 2 * THRESHOLDS / 8, size=1 << 22),
        Case("signs", threshold_inputs, lambda k, a, n: k.signs(a["r"], a["alpha"], 8), 16 + 1 / 8, size=1 << 22),
        Case("reaching", threshold_inputs,
             lambda k, a, n: k.reaching(a["bits"], a["alpha"], a["r"], 5, 8, True), 24 + 1 / 8, size=1 << 22),
        Case("outcome_rows", outcome_inputs, lambda k, a, n: k.outcome_rows(a["r"], a["alpha"], WINDOW, BLOCKS),
             16 + ENTRIES // 8, size=1 << 22),
        Case("outcome_tables, 3 columns", outcome_inputs,
             lambda k, a, n: k.outcome_tables(a["r"], a["alpha"], WINDOW, BLOCKS, 3), 16 + 24 * ENTRIES,
             size=1 << 20),
    ]


def sealed(k: Kernels, a: Arrays, n: int) -> Any:
    stream = Stream(KEY, "sealed", kernels=k)
    if k.fuses:
        return k.seal([(stream.sealing(a["x"], 48, 9), 48)])
    return k.seal([(Masked(a["x"] + stream.words(n, 48) + np.uint64(9), a["x"]), 48)])


def expanded(k: Kernels, a: Arrays, n: int) -> Any:
    columns = min(n, VOCABULARY)
    out = k.xp.empty((n // columns, columns), dtype=np.uint64)
    k.points(_keys(n // columns, columns), out)
    return out


@cache
def _keys(tokens: int, columns: int) -> PointKeys:
    return keys_of(np.arange(tokens) * 7 % columns, columns, KEY)[1]


def exponential(k: Kernels, a: Arrays, n: int) -> Any:
    out = k.xp.empty(n, dtype=np.uint64)
    k.exponential(a["u"], TURN_BITS, PERIOD, a["table"].reshape(POWERS, n), 18, out)
    return out


def weighed(k: Kernels, a: Arrays, n: int) -> Any:
    out = a["weights"][:1].copy()
    k.weigh(KEY, 0, a["tables"], a["u"], [shift for shift, _, _ in GUARDS], out)
    return out


def halves(n: int) -> list[Piece]:
    return [Piece(n // 2, 48), Piece(n - n // 2, 48)]


def corrected(k: Kernels, a: Arrays, n: int) -> Any:
    return k.corrections((KEY, OTHER), (a["x"][: n // 2], a["x"][n // 2 :]), halves(n))


def guard_inputs(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {"u": random_words(rng, n, 40), "weights": random_words(rng, len(GUARDS) * n),
            "tables": rng.integers(0, 256, 8 * len(GUARDS) * n, dtype=np.uint8)}


def nothing(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {}


def words(*names: str, bits: int = 64) -> Callable[[np.random.Generator, int], dict[str, np.ndarray]]:
    return lambda rng, n: {name: random_words(rng, n, bits) for name in names}


def random_words(rng: np.random.Generator, n: int, bits: int = 64) -> np.ndarray:
    return rng.integers(0, 2**bits - 1, n, dtype=np.uint64, endpoint=True)


def bytes_(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {"x": rng.integers(0, 256, n, dtype=np.uint8)}


def payload(bits: int) -> Callable[[np.random.Generator, int], dict[str, np.ndarray]]:
    return lambda rng, n: {"x": random_words(rng, n),
                           "payload": rng.integers(0, 256, n * -(-bits // 8), dtype=np.uint8)}


def lifts(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {"u": random_words(rng, n, 26), "rest": random_words(rng, n),
            "wraps": random_words(rng, 2 * n)}


def factors(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {name: random_words(rng, n, 26 if name in "uv" else 64) for name in ("u", "share", "v", "other", *TERMS)}


def multiplied(k: Kernels, a: Arrays, n: int) -> Any:
    x, y = Factor(a["u"], a["share"], 26), Factor(a["v"], a["other"], 26)
    return k.multiplied(x, y, {name: a[name] for name in TERMS}, True)


def series_inputs(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {"u": random_words(rng, n, TURN_BITS), "words": random_words(rng, 2 * HARMONICS * n)}


def exponential_inputs(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {"u": random_words(rng, n, TURN_BITS), "table": random_words(rng, n * POWERS)}


def tables(row: int) -> Callable[[np.random.Generator, int], dict[str, np.ndarray]]:
    return lambda rng, n: {"rows": rng.integers(0, 256, n * row, dtype=np.uint8), "v": random_words(rng, n, BLOCK_BITS)}


def flipped(k: Kernels, a: Arrays, n: int) -> Any:
    rows = a["rows"].reshape(n, -1)
    k.flip_bits(rows, a["v"])
    return rows


def looked_up(k: Kernels, a: Arrays, n: int) -> Any:
    share = a["v"].copy()
    k.outcome(a["rows"].reshape(n, -1), a["v"], 0, BLOCK_BITS, 2, False, share)
    return share


def picked(k: Kernels, a: Arrays, n: int) -> Any:
    share = a["v"].copy()
    k.pick(a["rows"].reshape(n, -1), a["v"] & np.uint64(7), 0, share)
    return share


def threshold_inputs(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {"rows": rng.integers(0, 256, 16 * n, dtype=np.uint8), "r": random_words(rng, n, 8),
            "bits": random_words(rng, n), "alpha": random_words(rng, -(-n // 64))}


def below_all(k: Kernels, a: Arrays, n: int) -> Any:
    planes = k.xp.zeros((THRESHOLDS, -(-n // 64)), dtype=np.uint64)
    k.below(a["rows"].reshape(n, 16), a["r"], range(0, 17 * THRESHOLDS, 17), 8, 0, planes)
    return planes


def gather_inputs(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {"entries": random_words(rng, 2 * ENTRIES * n), "e": random_words(rng, n, 2 * BLOCKS - 1)}


def outcome_inputs(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    return {"r": random_words(rng, n, WINDOW), "alpha": random_words(rng, n, 2 * BLOCKS - 1)}


def verify(cuda: Kernels, reference: Kernels, n: int) -> list[str]:
    """The names of kernels whose answers differ from the reference's in any bit."""
    wrong = []
    for case in cases():
        rng = np.random.default_rng(len(case.name))
        for size in (n, 1, n - 3):
            given = case.inputs(rng, size)
            on_device = {name: cuda.backend.asarray(x.copy()) for name, x in given.items()}
            expected, got = case.run(reference, given, size), case.run(cuda, on_device, size)
            pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
            if not all(same(cuda.backend.to_host(x), y) for x, y in pairs):
                wrong.append(case.name)
                break
    return wrong


def same(x: np.ndarray, y: np.ndarray) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def measure(cuda: Kernels, clock: Any, peaks: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per kernel: its seconds, and the fractions of the memory's and of the unit's ceiling that it reaches."""
    rows = []
    for case in cases():
        n = max(8, case.size // SHRINK)
        arrays = {k: cuda.backend.asarray(x) for k, x in case.inputs(np.random.default_rng(1), n).items()}
        seconds = clock.seconds(lambda c=case, a=arrays, n=n: c.run(cuda, a, n))
        arithmetic = case.work * n / seconds / peaks[case.unit] if case.unit in peaks else None
        rows.append({
            "kernel": case.name, "elements": n, "seconds": seconds, "bytes_a_second": case.moved * n / seconds,
            "share_of_memory": case.moved * n / seconds / peaks["memory"], "share_of_arithmetic": arithmetic,
            "unit": case.unit or "memory",
        })
        del arrays
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'kernel':<28}{'elements':>10}{'ms':>9}{'GB/s':>8}{'of memory':>11}{'of arithmetic':>15}  unit"]
    for r in rows:
        share = "" if r["share_of_arithmetic"] is None else f"{100 * r['share_of_arithmetic']:.0f} %"
        lines.append(f"{r['kernel']:<28}{r['elements']:>10}{1e3 * r['seconds']:>9.3f}{r['bytes_a_second'] / 1e9:>8.0f}"
                     f"{100 * r['share_of_memory']:>9.0f} %{share:>15}  {r['unit']}")
    return "\n".join(lines)
