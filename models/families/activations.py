"""Activations by the names that config files have for them, and how a family runs one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from secformer.models.families.blocks import Forward, entering
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.activations import RELU
from secformer.protocols.gates import GELU_NEW, QUICK_GELU, SILU
from secformer.protocols.quantities import opened
from secformer.protocols.recipes import Function, Further

GELU = "gelu"  # x/2 (1 + erf(x / sqrt 2)), the one that recipes replace
TANH = "tanh"  # a field of every recipe, too: of poolers and of some layers behind them, never of a feed-forward layer
FURTHER: Mapping[str, Function] = MappingProxyType({f.name: f for f in (RELU, SILU, GELU_NEW, QUICK_GELU)})
# Hugging Face has several names for one function
NAMES: Mapping[str, str] = MappingProxyType({
    GELU: GELU, "gelu_python": GELU, RELU.name: RELU.name, SILU.name: SILU.name, "swish": SILU.name,
    GELU_NEW.name: GELU_NEW.name, "gelu_fast": GELU_NEW.name, "gelu_accurate": GELU_NEW.name,
    "gelu_pytorch_tanh": GELU_NEW.name, "gelu_python_tanh": GELU_NEW.name, QUICK_GELU.name: QUICK_GELU.name,
})


def activation(s: Session, x: Share, f: Forward, place: str, name: str) -> Share:
    """The activation `name`, a value of NAMES or TANH, of x. Its scope has that name, and so has its site inside
    `place`: "layer.0.gelu", "head.silu"."""
    with s.scope(name):
        return _function(f, name)(s, x, f.at(f"{place}.{name}"))


def activating(s: Session, f: Forward, place: str, name: str) -> int:
    """The magnitude of the linear layer before the activation `name`, from what it takes (see `blocks.entering`)."""
    at = f.at(f"{place}.{name}")
    return entering(s, at, least=opened(_function(f, name), s.fixed, at))


def _function(f: Forward, name: str) -> Further:
    own = {GELU: f.recipe.gelu, TANH: f.recipe.tanh}
    return own[name] if name in own else f.recipe.of(FURTHER[name])
