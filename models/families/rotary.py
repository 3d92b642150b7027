"""What encoders with rotary positions share: Q and K that turn with positions, local attention, gated layers.

B texts, N tokens of all texts packed without padding, C hidden, I intermediate, H heads, D = C / H.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from secformer.models.data.inputs import TokenInputs
from secformer.models.families.activations import activating, activation
from secformer.models.families.blocks import Forward, attending, entering, linear, norming, projecting
from secformer.models.families.certain import Values, gated
from secformer.models.families.config import Config
from secformer.models.families.encoder import Encoder
from secformer.models.families.encoder_facts import EncoderSpec
from secformer.models.families.local import Meeting, alone_as_mean
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.fidelity import is_declared
from secformer.protocols.glu import GLU
from secformer.protocols.quantities import GATE
from secformer.protocols.recipes import Recipe
from secformer.protocols.rope import ROPE, Turning


@dataclass(frozen=True, kw_only=True)
class RotarySpec(EncoderSpec):
    """An encoder without a table of positions.

    longest  the most tokens of a text
    """

    longest: int


class RotaryEncoder(Encoder):
    """An encoder whose queries and keys turn with their positions, and whose feed-forward layers are gated."""

    spec: RotarySpec

    @classmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        found = super().facts_of(config, architecture)
        size = found["hidden"] // found["heads"]
        config.require("hidden_size / num_attention_heads", size % 2 == 0, "even, for rotary positions", size)
        stated = config.get("head_dim") or size
        config.require("head_dim", stated == size, f"hidden_size / num_attention_heads = {size}")
        return found | {"longest": found["positions"], "positions": 0}

    @cached_property
    def inputs(self) -> TokenInputs:
        return TokenInputs(self.spec.vocab, self.spec.types, self.spec.longest, self.embedded)

    # ---- the program -------------------------------------------------------------------------------------------------

    def attended(self, s: Session, x: Share, f: Forward, site: str, weights: str, *, theta: float,
                 reach: int | None = None, bias: bool = False, norm: str | None = None) -> Share:
        """W softmax(scores) V of x (N, C). Positions turn by `theta`; a query attends to keys that are at most `reach`
        tokens away, by default to all. `bias` says whether both linear layers have one; `norm` is the site of the
        LayerNorm that takes x and the result, added up, where one does."""
        heads = self.spec.heads
        meeting = Meeting.everywhere(f.batch) if reach is None else Meeting.within(f.batch, reach, x.shape[-1] // heads)
        with s.scope("linear"):
            q, k, v = self.projected(s, x, f, site, weights, theta, bias)
            at = f.at(f"{site}.softmax")
            queries, keys, values = meeting.of_queries(q, heads), meeting.of_keys(k, heads), meeting.of_keys(v, heads)
            scores = s.matmul(queries, keys.swapaxes(-1, -2), magnitude=attending(s, f, at))
        with s.scope("softmax"):
            context = f.recipe.softmax(s, scores, values, meeting.real(heads), at)
            context = alone_as_mean(s, meeting.joined(context, heads), v, meeting, f.batch)
        with s.scope("linear"):
            magnitude = None if norm is None else norming(s, f, norm)
            return linear(s, context, f, f"{weights}.attention", bias=bias, magnitude=magnitude)

    def projected(self, s: Session, x: Share, f: Forward, site: str, weights: str, theta: float,
                  bias: bool) -> tuple[Share, Share, Share]:
        """Q, K and V of x (N, C), each (N, C), Q and K turned. All are settled together, in whole words, before Q and K
        are turned: those then have a truncation pending, which the product of both makes locally."""
        c, tokens, turning = self.spec.hidden, x.shape[0], f.at(f"{site}.{ROPE.name}")
        qkv = linear(s, x, f, f"{weights}.qkv", bias=bias, magnitude=projecting(s, f.at(f"{site}.softmax")))
        (qkv,) = s.settle(qkv)
        turned = qkv[:, : 2 * c].reshape(tokens, 2 * self.spec.heads, c // self.spec.heads)
        turned = f.recipe.of(ROPE)(s, turned, f.batch.positions, Turning(theta), turning)
        turned = turned.reshape(tokens, 2 * c)
        return turned[:, :c], turned[:, c:], qkv[:, 2 * c :]

    def gated(self, s: Session, x: Share, f: Forward, site: str, weights: str, *, bias: bool = False,
              norm: str | None = None) -> Share:
        """W' (act(a) * b) of x (N, C), where a and b are the halves of W x. `bias` says whether both layers have one;
        `norm` is the site of the LayerNorm that takes x and the result, added up, where one does."""
        i = self.spec.intermediate
        both = max(activating(s, f, site, self.spec.act), entering(s, f.at(f"{site}.{GLU.name}"), GATE))
        with s.scope("linear"):
            inner = linear(s, x, f, f"{weights}.intermediate", bias=bias, magnitude=both)  # (N, 2I)
        inner, gate = activation(s, inner[:, :i], f, site, self.spec.act), inner[:, i:]
        with s.scope(GLU.name):
            inner = f.recipe.of(GLU)(s, inner, gate, f.at(f"{site}.{GLU.name}"))
        with s.scope("linear"):
            magnitude = None if norm is None else norming(s, f, norm)
            return linear(s, inner, f, f"{weights}.output", bias=bias, magnitude=magnitude)

    def certain(self, values: Values, recipe: Recipe) -> Mapping[str, float]:
        layers = [(f"layer.{i}", *self.norms_of(i)) for i in range(self.spec.layers)]
        return gated(values, self.weights(), layers, self.spec.act) if is_declared(recipe.layernorm) else {}

    @abstractmethod
    def norms_of(self, i: int) -> tuple[str, str]:
        """The names of the LayerNorms whose results layer i's attention and its gated layer take."""

    # ---- not trained here --------------------------------------------------------------------------------------------

    @property
    def hidden_sites(self) -> tuple[str, ...]:
        raise self._not_trained()

    @property
    def sizes(self) -> Mapping[str, int]:
        raise self._not_trained()

    def classifier(self, labels: tuple[str, ...]) -> Self:
        raise self._not_trained()


def theta_of(config: Config, key: str, parameters: Any) -> float:
    """The base of rotary angles, from rope parameters that the config has under `key`. Raises ModelError for a kind of
    scaling that is not run."""
    found = parameters if isinstance(parameters, Mapping) else {}
    kind, theta = found.get("rope_type", found.get("type")), found.get("rope_theta")
    config.require(f"rope_type of {key}", kind in ("default", None), "'default' (positions are not scaled)", kind)
    base = float(theta) if isinstance(theta, int | float) else 0.0
    config.require(f"rope_theta of {key}", base > 1.0, "a number above 1", theta)
    partial = found.get("partial_rotary_factor", 1.0)
    config.require(f"partial_rotary_factor of {key}", partial in (None, 1.0), "1 (all of a head turns)", partial)
    return base
