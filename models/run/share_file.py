"""One party's share file, as the owner's step writes it and a party reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from secformer.models.data.checkpoint import PathLike
from secformer.models.data.shares import SeedShares, Tensors
from secformer.models.data.tensors import Layout
from secformer.models.run.public import FORMAT, PublicModel
from secformer.mpc.errors import ModelError
from secformer.mpc.prg import SEED_BYTES
from secformer.mpc.ring import word_type


def share_file(rank: int) -> str:
    """The name of a party's share file in the folder that the owner writes."""
    return f"party{rank}.safetensors"


class ShareFile:
    """One party's share file: its rank, the public description, and the shares tensor by tensor."""

    def __init__(self, path: PathLike):
        """Reads the header. Raises ModelError for anything but a share file of this version."""
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        try:
            file: Any = safe_open(str(self.path), framework="np")
            metadata: dict[str, str] = file.metadata() or {}
            names = set(file.keys())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is not a readable share file: {error}; make it with: secformer "
                             f"provision") from error
        if metadata.get("format") != FORMAT or metadata.get("rank") not in ("0", "1"):
            raise ModelError(f"{path} is not a share file of this version (format {metadata.get('format')!r}, rank "
                             f"{metadata.get('rank')!r}); make it with: secformer provision")
        self._file, self.rank = file, int(metadata["rank"])
        self.public = PublicModel.from_json(metadata.get("public", ""), path)
        self.layout: Layout = self.public.layout
        self.shares: Tensors = self._seed() if names == {"seed"} else self
        if self.shares is self and (odd := sorted(names ^ set(self.layout))):
            raise ModelError(f"{path} does not hold the tensors of its model (missing or extra: {', '.join(odd[:4])}); "
                             f"make the file again with: secformer provision")

    def _seed(self) -> SeedShares:
        seed = self._file.get_tensor("seed")
        if seed.dtype != np.uint8 or seed.shape != (SEED_BYTES,):
            raise ModelError(f"{self.path}: the seed must have {SEED_BYTES} bytes, got {seed.dtype} {seed.shape}; make "
                             f"the file again with: secformer provision")
        return SeedShares(self.layout, seed.tobytes())

    def get(self, name: str) -> np.ndarray:
        """This party's words of a tensor. Raises ModelError where the file holds other words than the model needs."""
        words, tensor = np.asarray(self._file.get_tensor(name)), self.layout[name]
        dtype = word_type(tensor.width)
        if words.shape != tensor.shape or words.dtype != dtype:
            raise ModelError(f"{self.path}: tensor {name!r} is {words.dtype} {words.shape}, expected "
                             f"{np.dtype(dtype)} {tensor.shape}; make the file again with: secformer provision")
        return words
