"""A session's view of a model's tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from secformer.models.data.shares import Tensors
from secformer.mpc.session import Session
from secformer.mpc.shares import Share, Weight


@dataclass(frozen=True)
class Parameters:
    """A model's tensors in a session: `matrices` are standing right operands, `vectors` plain shares. `inside` narrows
    the view to names under a prefix, such as one layer's."""

    matrices: dict[str, Weight] = field(default_factory=dict)
    vectors: dict[str, Share] = field(default_factory=dict)
    prefix: str = ""

    def matrix(self, name: str) -> Weight:
        return self.matrices[self.prefix + name]

    def vector(self, name: str) -> Share:
        return self.vectors[self.prefix + name]

    def inside(self, name: str) -> Parameters:
        return replace(self, prefix=f"{self.prefix}{name}.")


def load_weights(s: Session, tensors: Tensors) -> Parameters:
    """Brings a model's tensors into a session: matrices as standing operands, the rest as plain shares.

    Price: one round for each matrix, its width in bits an element; nothing at request time.
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
