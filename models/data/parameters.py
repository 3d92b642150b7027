"""A session's view of a model's tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from secformer.models.data.shares import Tensors
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight


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

    def inside(self, name: str) -> Parameters:
        """The same tensors, looked up under a longer prefix, such as that of one layer."""
        return replace(self, prefix=f"{self.prefix}{name}.")


def load_weights(s: Session, tensors: Tensors) -> Parameters:
    """Brings a model's tensors into a session: opens each matrix under its standing mask, and keeps the rest as shares.

    Price: one round per matrix, and the matrix's width in bits per element. Requests pay nothing for it.
    """
    parameters = Parameters()
    with s.scope("provision"):
        for name, tensor in tensors.layout.items():
            words = tensors.get(name)
            if tensor.standing:
                parameters.matrices[name] = s.open_weight(words, width=tensor.width)
            else:
                parameters.vectors[name] = s.accept(words, width=tensor.width)
    return parameters
