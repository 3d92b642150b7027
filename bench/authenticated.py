"""What MACs would cost: counted from a plan of BERT_BASE, kind by kind, and measured with the prototype's product.

    python bench/authenticated.py

The counts are on paper (docs/authenticated.md): shares modulo 2^(w + 64) with MACs, all made by the dealer, in place of
shares modulo 2^w. The program is the one that runs today, with its windows and its rounds. The rules:

mask of b bits        the dealer sends its MAC, b + 64 bits; today it sends nothing
derived, of b bits    the dealer sends b bits, and the MAC of b + 64 bits
dropped low bits      are opened, too, since no MAC survives a local shift; the dealer deals the mask without its low
                      bits as a derived word where the product needs it
lifted operands       the dealer deals the mask in the product's width, and its top bit, in place of two wraps

The prototype is NumPy. It is compared with the same product without MACs in NumPy, and with the engine's product.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # prototypes are not installed

from bert import SHAPES, checkpoint
from floors import plan_of
from gpu_floor import PRODUCTS, floors
from report import RESULTS, record

from prototypes.authenticated.dealer import Dealer
from prototypes.authenticated.pair import together
from prototypes.authenticated.party import Party
from secformer.models.families.folder import ModelFolder
from secformer.mpc.dealer.kinds import Field, Kind, Lift
from secformer.mpc.dealer.products import Bilinear
from secformer.mpc.functions import Exponential, Opening, Series
from secformer.mpc.guards import Check
from secformer.mpc.kernels.words import whole_bytes
from secformer.mpc.net.channel import Channel, local_pair
from secformer.mpc.net.wire import Tag
from secformer.mpc.prg import fresh_seed
from secformer.mpc.scales import Operand, Truncation
from secformer.mpc.sessions.recorder import PlanRecorder
from secformer.mpc.shares import Share
from secformer.mpc.simulate import World

TOKENS, RECIPE = 128, "faithful"
EXTRA_BYTES = 8                # s = 64
CHECK = {"rounds": 5, "bytes": 2 * 184}  # of one check of a request's openings
SIZES = (1 << 10, 1 << 14, 1 << 18)
# word products for one of today's: of an opened word with a share of two words, and with its MAC
AT_PARTIES, AT_DEALER = 6, 4


class Drop(NamedTuple):
    """An opening whose shares lose low bits before.

    kind    the verb's correlation
    count   elements
    bits    opened today
    shift   bits that are dropped
    lifted  whether the opening also lifts
    """

    kind: str
    count: int
    bits: int
    shift: int
    lifted: bool


class DropRecorder(PlanRecorder):
    """Also notes what is dropped, and the MACs of weights' masks."""

    def __init__(self) -> None:
        super().__init__()
        self.drops: list[Drop] = []
        self.weight_bytes = 0

    def _note_drop(self, kind: str, count: int, bits: int, shift: int, lifted: bool) -> None:
        if shift:
            self.drops.append(Drop(kind, count, bits, shift, lifted))

    def _open_weight(self, data: Any, index: int, width: int) -> None:
        self.weight_bytes += math.prod(np.shape(data)) * mac(width)
        super()._open_weight(data, index, width)

    def _operand_of(self, x: Share, width: int, lifts: bool, checked: bool = True) -> Operand:
        found = super()._operand_of(x, width, lifts, checked)
        self._note_drop("Hadamard" if lifts else "MatMul", x.size, found.window or width, x.frac - found.frac,
                        bool(found.window))
        return found

    def _truncate(self, jobs: list[Truncation]) -> list[Any]:
        for job in jobs:
            self._note_drop("Lift", job.x.size, job.window - job.shift, job.shift, True)
        return super()._truncate(jobs)

    def _series(self, x: Share, functions: list[Series], opening: Opening, width: int,
                check: Check | None) -> list[Any]:
        self._note_drop("SeriesMask", x.size, opening.bits, x.frac - opening.keep, True)
        return super()._series(x, functions, opening, width, check)

    def _exponential(self, x: Share, function: Exponential, opening: Opening, check: Check | None) -> Any:
        self._note_drop("ExpMask", x.size, opening.bits, x.frac - opening.keep, True)
        return super()._exponential(x, function, opening, check)


def mac(bits: int) -> int:
    """Bytes of a word's MAC, which the dealer sends to party 1."""
    return whole_bytes(bits) + EXTRA_BYTES


def derived(bits: int) -> int:
    """Bytes of a derived word and its MAC."""
    return whole_bytes(bits) + mac(bits)


def opened_more(drop: Drop) -> int:
    """Bytes that both parties together send for the low bits."""
    return 2 * drop.count * (whole_bytes(drop.bits + drop.shift) - whole_bytes(drop.bits))


def dealt_more(drop: Drop) -> int:
    """Bytes that the dealer sends for the low bits: of the mask's MAC, and for the mask without them."""
    short = 0 if drop.lifted else derived(drop.bits)
    return drop.count * (mac(drop.bits + drop.shift) - mac(drop.bits) + short)


def dealt(kind: Kind) -> int:
    """Bytes that the dealer sends for a correlation with MACs, whose shares lose no bits before."""
    return sum(f.count * (authentic(f) if not f.name.startswith("wraps") else 0) for f in kind.fields()) + lifts(kind)


def authentic(field: Field) -> int:
    """Bytes per word of a field."""
    if field.xor:
        raise SystemExit(f"{field.name} is shared by xor: no rule here says what look-ups in tables of bits need")
    return derived(field.bits) if field.derived else mac(field.bits)


def lifts(kind: Kind) -> int:
    """Bytes for the masks of lifted operands, in the width of the result, and for their top bits."""
    if isinstance(kind, Lift):
        each = [(kind.count, kind.window, kind.width)]
    elif isinstance(kind, Bilinear):
        each = [(kind.size(i), kind.window(i), kind.bits[i]) for i in kind.fresh if kind.window(i)]
    else:
        each = []
    return sum(count * (derived(width) + (derived(width - window) if width > window else 0))
               for count, window, width in each)


def counted(kinds: Sequence[Kind], drops: Iterable[Drop]) -> dict[str, dict[str, int]]:
    """Bytes by kind: online in both directions, and of the dealer, each now and with MACs."""
    rows: dict[str, dict[str, int]] = {}
    for kind in kinds:
        row = rows.setdefault(type(kind).__name__, dict.fromkeys(("correlations", "online", "online_macs", "dealer",
                                                                  "dealer_macs"), 0))
        for key, more in (("correlations", 1), ("online", 2 * kind.opened), ("online_macs", 2 * kind.opened),
                          ("dealer", kind.corrections), ("dealer_macs", dealt(kind))):
            row[key] += more
    for drop in drops:
        rows[drop.kind]["online_macs"] += opened_more(drop)
        rows[drop.kind]["dealer_macs"] += dealt_more(drop)
    return rows


def paper(shape: str, tokens: int) -> dict[str, Any]:
    recorder = DropRecorder()
    with tempfile.TemporaryDirectory() as at:
        checkpoint(Path(at), *SHAPES[shape], 0)
        plan = plan_of(ModelFolder(Path(at)), tokens, RECIPE, 0, recorder)
    rows = counted(plan.kinds, recorder.drops)
    both, products = 2 * sum(kind.opened for kind in plan.kinds), sum(floors(plan.kinds)["words_by_bits"].values())
    if (both, plan.dealer_bytes) != (sum(r["online"] for r in rows.values()), sum(r["dealer"] for r in rows.values())):
        raise SystemExit("the rows do not add up to the plan: nothing is recorded")
    more, dealer = products * (PRODUCTS - 1) // PRODUCTS, products // PRODUCTS
    total = {key: sum(row[key] for row in rows.values()) for key in next(iter(rows.values()))}
    return {"shape": shape, "tokens": tokens, "recipe": RECIPE, "kinds": rows, "total": total, "check": CHECK,
            "rounds": plan.rounds, "rounds_macs": plan.rounds + CHECK["rounds"],
            "word_products": {"parties": more, "parties_macs": more * AT_PARTIES, "dealer": dealer,
                              "dealer_macs": dealer * AT_DEALER},
            "weights_macs_once": recorder.weight_bytes}


# ---- the prototype ---------------------------------------------------------------------------------------------------


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


def with_macs(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Seconds of a product and of its check at the slower party, and of the dealer."""
    dealer = Dealer(fresh_seed())
    spent, (left, right, triple, mask) = timed(
        lambda: (dealer.share(x), dealer.share(y), dealer.triple(x.shape, y.shape), dealer.random((1,))))

    def program(party: Party) -> tuple[float, float, Any]:
        rank = party.key.rank
        product, z = timed(lambda: party.multiply(left[rank], right[rank], triple[rank]))
        check, _ = timed(lambda: party.check(mask[rank]))
        return product, check, z.value.low

    both = together(dealer, program)
    require(both[0][2] + both[1][2], x * y)
    return {"product": max(b[0] for b in both), "check": max(b[1] for b in both), "dealer": spent}


def without_macs(x: np.ndarray, y: np.ndarray) -> float:
    """Seconds of the same product on bare shares at the slower party."""
    rng = np.random.default_rng()
    a, b = (rng.integers(0, 2**64, x.shape, dtype=np.uint64) for _ in range(2))
    first = [rng.integers(0, 2**64, x.shape, dtype=np.uint64) for _ in range(5)]
    held = first, [value - share for value, share in zip((x, y, a, b, a * b), first, strict=True)]
    ends = local_pair("party 0", "party 1")

    def program(rank: int) -> tuple[float, np.ndarray]:
        return timed(lambda: bare(ends[rank], rank, held[rank]))

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(program, (0, 1)))
    require(both[0][1] + both[1][1], x * y)
    return max(seconds for seconds, _ in both)


def bare(channel: Channel, rank: int, held: Sequence[np.ndarray]) -> np.ndarray:
    x, y, a, b, c = held
    mine, tag = np.concatenate([x - a, y - b]), Tag(1, "open", 64, 2 * x.size)
    channel.send(tag, mine.view(np.uint8))
    d, e = np.split(mine + channel.receive(tag, mine.nbytes).view(np.uint64), 2)
    found = c + b * d + a * e
    return found + d * e if rank == 0 else found


def engine(world: World, x: np.ndarray, y: np.ndarray) -> float:
    """Online seconds of the engine's product of whole words."""
    mask = np.random.default_rng().integers(0, 2**64, (2, *x.shape), dtype=np.uint64)

    def program(s: Any, shares: Sequence[np.ndarray]) -> Any:
        left, right = (s.accept(v, frac=0) for v in shares)
        return s.mul(left, right, whole=True).data

    outcome = world.run(program, [x - mask[0], y - mask[1]], list(mask))
    require(outcome.results[0] + outcome.results[1], x * y)
    return float(outcome.cost.seconds)


def require(found: np.ndarray, exact: np.ndarray) -> None:
    if not np.array_equal(found, exact):
        raise SystemExit("a product is wrong: nothing is recorded")


def measured(sizes: Iterable[int], repeat: int) -> dict[str, dict[str, float]]:
    """Medians of so many runs, by elements."""
    world, rows = World(backend="numpy"), {}
    for size in sizes:
        x, y = np.random.default_rng(size).integers(0, 2**64, (2, size), dtype=np.uint64)
        turns = [{"bare": without_macs(x, y), "engine": engine(world, x, y), **with_macs(x, y)}
                 for _ in range(repeat + 1)][1:]
        row = {key: median(turn[key] for turn in turns) for key in turns[0]}
        rows[str(size)] = {**{key: round(seconds * 1e3, 3) for key, seconds in row.items()},
                           "over_bare": round(row["product"] / row["bare"], 1),
                           "over_engine": round(row["product"] / row["engine"], 1)}
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    facts = {**paper(args.shape, args.tokens), "repeat": args.repeat, "milliseconds": measured(SIZES, args.repeat)}
    for name, row in (*facts["kinds"].items(), ("total", facts["total"])):
        print(f"{name:<12}" + "".join(f"{key:>13} {value / 1e6:9.1f}" for key, value in row.items()))
    print({key: facts[key] for key in ("rounds", "rounds_macs", "word_products", "weights_macs_once", "milliseconds")})
    record("authenticated", facts, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
