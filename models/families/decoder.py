"""What decoders have in common: layers x + attention(norm(x)), then x + feed_forward(norm(x)), each token meeting those
before it, and a head that tells the next token.

A family says where its checkpoints keep each tensor and what its parts are: norms, positions, queries, keys and values,
feed-forward layers. Who attends to what is an `Attending` (`attending`): `answer` runs whole texts; whoever keeps keys
of earlier tokens calls `hidden` and `logits` with an `Attending` of its own.

N tokens, packed without padding, C hidden, I intermediate, H heads of queries, G heads of keys, D entries of a head,
V words.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import TABLE, Layout, Part, Tensor, matrix
from secformer.models.families.architecture import Architecture, Rows, Spec, later
from secformer.models.families.attending import Attending, Causal, prefix_names
from secformer.models.families.blocks import Forward, linear, look_up
from secformer.models.families.config import Config
from secformer.models.families.heads import Head
from secformer.mpc.errors import RangeError
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.softmax import log_keys

FIRST = (". Many decoders have values at position 0 that words cannot hold without a public prefix: they are thousands "
         "of times those of all other tokens. Then make the first tokens public, such as BOS or a system prompt")
DECODER_HEAD = "head"  # the program's name of the layer that tells the next token


@dataclass(frozen=True, kw_only=True)
class DecoderSpec(Spec):
    """The public facts of a decoder's checkpoint.

    vocab, hidden, layers, heads, intermediate  V, C, number of layers, H, I
    groups   G, heads of keys and values
    size     D
    longest  the most tokens of a text
    eps      the norms' epsilon
    tied     the head reads the word table
    prefix   tokens that every text begins with, which are public: their keys and values are tensors of the model, and
             no text is given them
    act      the feed-forward layers' activation, a value of `activations.NAMES`
    """

    vocab: int
    hidden: int
    layers: int
    heads: int
    groups: int
    size: int
    intermediate: int
    longest: int
    eps: float
    tied: bool
    act: str
    prefix: tuple[int, ...] = later(())


class Decoder(Architecture):
    """A decoder with norms before each half of a layer. A family says what `layer_layout`, `normed`, `attended`, `fed`
    and their sites are.

    words  the checkpoint's name of the word table
    """

    spec_type: ClassVar[type[DecoderSpec]] = DecoderSpec
    words: ClassVar[str]
    stored_head: ClassVar[str] = "lm_head.weight"

    spec: DecoderSpec

    @classmethod
    def from_config(cls, config: Config, architecture: str) -> Self:
        config = config.filled()
        return cls(cls.spec_type(**cls.facts_of(config, architecture)))

    @classmethod
    @abstractmethod
    def facts_of(cls, config: Config, architecture: str) -> dict[str, Any]:
        """The fields of the spec, from a filled config. Raises ModelError, which names the key, for a variant that is
        not run."""

    # ---- tensors -----------------------------------------------------------------------------------------------------

    def tables(self) -> dict[str, Tensor]:
        return {TABLE: Tensor((Part((self.words,), (self.spec.vocab, self.spec.hidden)),), 0, True)}

    def weights(self) -> dict[str, Tensor]:
        found = self.position_layout()
        for i in range(self.spec.layers):
            found |= self.layer_layout(i)
        return found | self.final_layout() | self.prefix_layout() | self.head_layout()

    def prefix_layout(self) -> dict[str, Tensor]:
        """Keys and values (P, G D) of the public prefix, by layer."""
        shape, layers = (len(self.spec.prefix), self.spec.groups * self.spec.size), self.spec.layers
        names = [name for i in range(layers) for name in prefix_names(i)] if self.spec.prefix else []
        return {name: Tensor((Part((name,), shape),), standing=True) for name in names}

    def behind(self, prefix: Sequence[int]) -> Self:
        """The same decoder, for texts that stand behind a public prefix."""
        return replace(self, spec=replace(self.spec, prefix=tuple(prefix)))

    def position_layout(self) -> dict[str, Tensor]:
        """Tensors that `placed` reads."""
        return {}

    @abstractmethod
    def layer_layout(self, i: int) -> dict[str, Tensor]:
        """Tensors of layer i, under the program's name `layer.i`. The scale of scores is part of what makes queries."""

    @abstractmethod
    def final_layout(self) -> dict[str, Tensor]:
        """Tensors of the norm behind the last layer, `final.norm`."""

    def layout(self, width: int | None) -> Layout:
        """As `Architecture.layout`. A head that is tied to a table that is shared is that table, in whole words."""
        if width is None or not self.spec.tied or self.head is not Head.CAUSAL:
            return super().layout(width)
        layout = super().layout(WORD_BITS)
        return {name: tensor for name, tensor in layout.items() if name != f"{DECODER_HEAD}.weight"}

    def head_layout(self) -> dict[str, Tensor]:
        """The head's matrix (C, V): the word table, transposed, where both are one tensor."""
        if self.head is not Head.CAUSAL:
            return {}
        c, v = self.spec.hidden, self.spec.vocab
        return {f"{DECODER_HEAD}.weight": matrix(self.words if self.spec.tied else self.stored_head, c, v)}

    # ---- inputs ------------------------------------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> TokenInputs:
        return TokenInputs(self.spec.vocab, 0, self.spec.longest - len(self.spec.prefix), self.spec.hidden,
                           before=self.spec.prefix)

    def embedding_sums(self, rows: Rows, batch: Batch) -> Any:
        """The rows of words (N, C). Positions are no part of them: `placed` adds those, if at all."""
        return rows(self.words, (self.spec.vocab, self.spec.hidden), batch.ids)

    # ---- the program -------------------------------------------------------------------------------------------------

    def embed(self, s: Session, rows: Share, f: Forward) -> Share:
        return look_up(s, rows, f)

    def answer(self, s: Session, x: Share, f: Forward) -> dict[str, Share]:
        x = self.hidden(s, x, f, Causal(f.batch, len(self.spec.prefix)))
        out = {"last_hidden_state": x}
        return out | {"logits": self.logits(s, x, f)} if self.head is Head.CAUSAL else out

    def hidden(self, s: Session, x: Share, f: Forward, attending: Attending) -> Share:
        """The last hidden state (N, C) of rows of words (N, C), whose places and keys `attending` knows."""
        with s.scope("embedding"):
            (x,) = s.lift(x)  # a look-up is as narrow as the table; all layers add to this
            x = self.placed(s, x, f, attending)
        for i in range(self.spec.layers):
            with s.scope(f"layer.{i}"):
                x = self.layer(s, x, f, i, attending)
        with s.scope("final"):
            return self.norm(s, x, f, "final.norm")

    def logits(self, s: Session, x: Share, f: Forward) -> Share:
        """A number for each word that may come next: hidden states (n, C) to (n, V)."""
        with s.scope("head"):
            if f"{DECODER_HEAD}.weight" in f.parameters.matrices:
                return linear(s, x, f, DECODER_HEAD, bias=False)
            pairs = [(x, rows.transposed()) for rows in f.parameters.blocks(TABLE)]
            found = s.matmul_many(pairs)
            return found[0] if len(found) == 1 else s.concatenate(found, -1)

    @property
    def reaches(self) -> frozenset[int | None]:
        """How many tokens before its own a token meets in attention: all that layers have."""
        return frozenset({None})

    def numbers(self, frac: int) -> Iterator[np.ndarray]:
        """The public numbers that a step's program takes from where its tokens stand, for all places, where numbers
        have `frac` fractional bits. Two parties compute them for themselves, and must have the same."""
        yield log_keys(np.arange(1, self.spec.longest + 1))

    def placed(self, s: Session, x: Share, f: Forward, attending: Attending) -> Share:
        """Rows of words (N, C) with what their positions add."""
        return x

    def layer(self, s: Session, x: Share, f: Forward, i: int, attending: Attending) -> Share:
        """Layer i. What is added up stays pending: only what norms take of it is ever truncated."""
        x = _added(s, x, self.attended(s, x, f, i, attending))
        return _added(s, x, self.fed(s, x, f, i))

    def norms_after(self, i: int) -> tuple[str, str]:
        """The sites of the norms that take the sums behind layer i's attention and behind its feed-forward: what these
        add is as wide as those need."""
        return f"layer.{i}.mlp.norm", f"layer.{i + 1}.attention.norm" if i + 1 < self.spec.layers else "final.norm"

    def norm(self, s: Session, x: Share, f: Forward, site: str) -> Share:
        """`normed`, `at_norm` of that site."""
        with self.at_norm(site):
            return self.normed(s, x, f, site)

    @contextmanager
    def at_norm(self, site: str) -> Iterator[None]:
        """A RangeError for ranges that words do not hold gets the site's name. Where the first token of a text is among
        the tokens, it says what helps, too."""
        try:
            yield
        except RangeError as error:
            place = ".".join(site.split(".")[-2:])  # scopes say the layer
            raise RangeError(f"{place}: {error}{'' if self.spec.prefix else FIRST}") from error

    @abstractmethod
    def normed(self, s: Session, x: Share, f: Forward, site: str) -> Share:
        """The norm of that site of x (N, C); its tensors begin with the site's name."""

    @abstractmethod
    def attended(self, s: Session, x: Share, f: Forward, i: int, attending: Attending) -> Share:
        """Layer i's attention of the norm of x (N, C), its output's linear layer included: (N, C)."""

    @abstractmethod
    def fed(self, s: Session, x: Share, f: Forward, i: int) -> Share:
        """Layer i's feed-forward of the norm of x (N, C): (N, C)."""

    @property
    def sites(self) -> tuple[str, ...]:
        layers = (f"layer.{i}.{name}" for i in range(self.spec.layers) for name in self.layer_sites)
        return (*layers, "final.norm")

    @property
    @abstractmethod
    def layer_sites(self) -> tuple[str, ...]:
        """The sites of a layer, without its name."""

    @property
    def fillable(self) -> bool:
        return True

    @property
    def results(self) -> Mapping[str, bool]:
        return {"last_hidden_state": True} | ({"logits": True} if self.head is Head.CAUSAL else {})


def _added(s: Session, x: Share, y: Share) -> Share:
    """x + y, right modulo as much as y is: x is lifted before where it is narrower, as where a layer's results are much
    larger than all before. Price: nothing, else one round."""
    if y.width - y.frac > x.width - x.frac:
        holds = x.width - x.frac - 2  # which is more than the norm before has checked
        (x,) = s.lift(x.promise(min(x.magnitude, holds)))
    return x + y
