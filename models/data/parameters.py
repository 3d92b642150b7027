"""A session's view of a model's tensors."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from typing import TypeVar

from secformer.models.data.shares import Tensors
from secformer.models.data.tensors import TABLE
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight

T = TypeVar("T", Share, Weight)
PART = "#"      # stands between a table's name and the number of its block
BLOCK = 1 << 23  # elements of the table that are opened at a time: bounds the memory that loading takes


@dataclass(frozen=True)
class Parameters:
    """A model's tensors in a session, by name.

    matrices  right operands of products, each opened under its standing mask
    vectors   all other tensors, as ordinary shares
    prefix    what `matrix` and `vector` put before the names that they look up
    """

    matrices: dict[str, Weight] = field(default_factory=dict)
    vectors: dict[str, Share] = field(default_factory=dict)
    prefix: str = ""

    def matrix(self, name: str) -> Weight:
        return self.matrices[self.prefix + name]

    def vector(self, name: str) -> Share:
        return self.vectors[self.prefix + name]

    def blocks(self, name: str) -> list[Weight]:
        """The blocks of rows in which a large table was opened, in order; a small one is a single block."""
        name = self.prefix + name
        return [weight for key, weight in self.matrices.items() if key.partition(PART)[0] == name]

    def inside(self, name: str) -> Parameters:
        """The same tensors, looked up under a longer prefix, such as that of one layer."""
        return replace(self, prefix=f"{self.prefix}{name}.")

    def lent(self, s: Session) -> Parameters:
        """The same tensors in another session of the same party. Both sessions hold the same words."""
        return Parameters({name: _lent(w, s) for name, w in self.matrices.items()},
                          {name: _lent(v, s) for name, v in self.vectors.items()}, self.prefix)


def _lent(x: T, s: Session) -> T:
    lent = copy(x)  # whatever facts it carries; the words themselves are not copied
    lent.session = s
    return lent


def load_weights(s: Session, tensors: Tensors) -> Parameters:
    """Brings a model's tensors into a session: opens each matrix under its standing mask, and keeps the rest as shares.

    The table of embeddings is opened in blocks of rows. Price: one round per matrix or block, and the matrix's width in
    bits per element. Requests pay nothing for it.
    """
    parameters = Parameters()
    with s.scope("provision"):
        for name, tensor in tensors.layout.items():
            words = tensors.get(name)
            if name == TABLE:
                rows = max(1, BLOCK // words.shape[1])
                for i, start in enumerate(range(0, len(words), rows)):
                    part = words[start : start + rows]
                    parameters.matrices[f"{name}{PART}{i}" if i else name] = s.open_weight(part, width=tensor.width)
            elif tensor.standing:
                parameters.matrices[name] = s.open_weight(words, width=tensor.width)
            else:
                parameters.vectors[name] = s.accept(words, width=tensor.width)
    return parameters
