"""What the processor that numba compiles for can do."""

from __future__ import annotations

from contextlib import suppress

from llvmlite.binding import get_host_cpu_features
from numba.core import config


def _features() -> frozenset[str]:
    """As numba sees them (its documented variables may ask for less than the host has)."""
    listed = config.CPU_FEATURES
    if listed is None and config.CPU_NAME != "generic":
        with suppress(RuntimeError):  # not every processor can be asked
            listed = get_host_cpu_features().flatten()
    return frozenset(name[1:] for name in (listed or "").split(",") if name.startswith("+"))


WIDE = {"avx512f", "avx512dq"} <= _features()  # 32 registers of 64 bytes and a product of 64-bit words
FUSED = WIDE and "avx512ifma" in _features()   # multiplication and addition of 52 bits at once
