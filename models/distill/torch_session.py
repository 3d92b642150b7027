"""A session on torch tensors, differentiable: the same programs, so that what is trained is what is run.

It counts fractional bits and widths as every session does, and computes on reals without rounding, as the float64 twin
does. Training may use float32 and take matrix products in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secformer.mpc.errors import RangeError, SettingsError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Exponential, Opening, Series
from secformer.mpc.guards import Check, Texts
from secformer.mpc.primitives import Levels, Threshold
from secformer.mpc.scales import Operand, Truncation
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight

BLOCK = 1 << 14  # values for which a series is evaluated at a time, to save memory


class TorchSession(Session):
    """Runs a program on tensors of one number type and device. Not secure, and not meant to be.

    dtype     of every value
    products  number type in which matrix products are taken; results are brought back to `dtype`
    """

    numbers = Tensor

    def __init__(self, fixed: FixedPoint | None = None, *, dtype: Any = torch.float32, products: Any = None,
                 device: Any = "cpu"):
        super().__init__(fixed)
        self.dtype, self.products, self.device = dtype, products or dtype, device

    def values(self, x: Share) -> Tensor:
        tensor: Tensor = x.data
        return tensor

    def _share(self, x: Any, owner: int, shape: tuple[int, ...]) -> Tensor:
        if x is None:
            raise RangeError("this session holds every value: give the array itself, whoever owns it")
        return self._accept(x).expand(shape)

    def _accept(self, data: Any) -> Tensor:
        if isinstance(data, Tensor):
            return data.to(self.device, self.dtype)
        return torch.tensor(np.asarray(data), dtype=self.dtype, device=self.device)

    def _open_weight(self, data: Any, index: int, width: int) -> Tensor:
        return self._accept(data)

    def _public(self, x: np.ndarray, frac: int) -> Tensor:
        return torch.tensor(x, dtype=self.dtype, device=self.device)

    def _reveal(self, x: Share, to: int | str) -> np.ndarray:
        return np.asarray(x.data.detach().double().cpu())

    def _add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def _negate(self, a: Tensor) -> Tensor:
        return -a

    def _shift(self, a: Tensor, bits: int) -> Tensor:
        return a

    def _drop(self, a: Tensor, bits: int) -> Tensor:
        return a

    def _rounded(self, a: Tensor, bits: int) -> Tensor:
        return a

    def _scale(self, a: Tensor, c: np.ndarray, bits: int) -> Tensor:
        return a * (float(c) if c.ndim == 0 else self._public(c, bits))

    def _point(self, a: Tensor, exponent: int) -> Tensor:
        return a * 2.0**exponent

    def _sum(self, a: Tensor, axis: int, keepdims: bool) -> Tensor:
        return a.sum(dim=axis, keepdim=keepdims)

    def _concatenate(self, parts: list[Tensor], axis: int) -> Tensor:
        return torch.cat(parts, dim=axis)

    def _broadcast(self, a: Tensor, shape: tuple[int, ...]) -> Tensor:
        return a.expand(shape)

    def _transpose(self, a: Tensor, axes: tuple[int, ...]) -> Tensor:
        return a.permute(axes)

    def _truncate(self, jobs: list[Truncation]) -> list[Tensor]:
        return [job.x.data for job in jobs]

    def _mul(self, pairs: list[tuple[Operand, Operand]], widths: list[int], kept: list[Operand]) -> list[Tensor]:
        return [*(a.data * b.data for a, b in pairs), *(v.data for v in kept)]

    def _held(self, weight: Weight) -> Tensor:
        found: Tensor = weight.data
        return found

    def _matmul(self, pairs: list[tuple[Operand, Operand | Weight]], widths: list[int]) -> list[Tensor]:
        return [(a.data.to(self.products) @ b.data.to(self.products)).to(self.dtype) for a, b in pairs]

    def _series(self, x: Share, functions: list[Series], opening: Opening, width: int,
                check: Check | None) -> list[Tensor]:
        return [FourierSum.apply(x.data, f) for f in functions]

    def _exponential(self, x: Share, function: Exponential, opening: Opening, check: Check | None) -> Tensor:
        return torch.exp(x.data)

    def _less(self, x: Share, thresholds: list[Threshold], window: int, width: int,
              check: Check | None) -> list[Tensor]:
        value = x.data.detach()
        return [(value < c).to(self.dtype) for c, _ in thresholds]

    def _reached(self, x: Share, levels: Levels, check: Check | None) -> list[Tensor]:
        largest = x.data.detach().amax(dim=-1, keepdim=True)
        return [(largest >= c).to(self.dtype) for c, _ in levels.thresholds]

    def _relu(self, x: Share, window: int, width: int, check: Check | None) -> Tensor:
        return torch.relu(x.data)

    # training has no guard: nothing is hidden from it

    def _watch(self, texts: Texts | None, count: int) -> None:
        if texts is not None:
            raise SettingsError("a session for training has no guard; run the program outside of a guarded block")

    def _witness(self, jobs: list[tuple[Share, Check]]) -> None:
        raise SettingsError("a session for training has no guard")

    def _seen(self, apart: bool) -> Any:
        raise SettingsError("a session for training has no guard")


class FourierSum(torch.autograd.Function):
    """A series and its derivative by Clenshaw's recurrence from one sine and one cosine, a block of values at a time,
    so that the working set stays in cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Series) -> Tensor:
        """f(x); keeps f'(x) where a gradient is wanted."""
        wanted = ctx.needs_input_grad[0]
        flat = x.reshape(-1)
        value = torch.empty_like(flat)
        slope = torch.empty_like(flat) if wanted else None
        for i in range(0, flat.numel(), BLOCK):
            part = slice(i, i + BLOCK)
            _evaluate(f, flat[part], value[part], None if slope is None else slope[part])
        if slope is not None:
            ctx.save_for_backward(slope.view(x.shape))
        return value.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """gradient f'(x)."""
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


def _evaluate(f: Series, x: Tensor, value: Tensor, slope: Tensor | None) -> None:
    """Writes f(x) and f'(x). With v = w x, the derivative of sum a_k cos(kv) + b_k sin(kv) has the cosines w k b_k and
    the sines -w k a_k."""
    w = 2.0 * math.pi / 2.0**f.period_bits
    angle = x * w
    cos, sin = torch.cos(angle), torch.sin(angle)
    torch.mul(x, f.linear, out=value).add_(f.cos[0])
    _clenshaw(f.cos, f.sin, cos, sin, value)
    if slope is not None:
        slope.fill_(f.linear)
        _clenshaw([w * k * b for k, b in enumerate(f.sin)], [-w * k * a for k, a in enumerate(f.cos)], cos, sin, slope)


def _clenshaw(a: Sequence[float], b: Sequence[float], cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Adds sum over k >= 1 of a_k cos(kv) + b_k sin(kv) to `out`."""
    twice = cos + cos
    for coefficients, even in ((a, True), (b, False)):
        if not any(coefficients[1:]):
            continue
        y, before = torch.zeros_like(cos), torch.zeros_like(cos)
        for c in reversed(coefficients[1:]):
            y, before = before.neg_().addcmul_(twice, y).add_(c), y
        if even:
            out.addcmul_(y, cos).sub_(before)
        else:
            out.addcmul_(y, sin)
