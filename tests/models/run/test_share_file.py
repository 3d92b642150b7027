"""Reading a share file: anything but a whole one of this version is refused, with what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from secformer.models.run.public import CLIENT_FOLDER, FORMAT, PublicModel
from secformer.models.run.share_file import ShareFile, share_file
from secformer.mpc.errors import ModelError


def test_odd_share_files_are_refused(provisioned: Path, tmp_path: Path) -> None:
    public = PublicModel.load(provisioned / CLIENT_FOLDER)
    good = {"format": FORMAT, "rank": "0", "public": public.to_json()}
    path = tmp_path / "x.safetensors"

    def refused(tensors: dict[str, np.ndarray], metadata: dict[str, str] | None, said: str) -> None:
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(ModelError, match=said):
            file = ShareFile(path)
            for name in public.layout:
                file.shares.get(name)

    seed = np.zeros(32, np.uint8)
    refused({"seed": seed}, None, "not a share file")
    refused({"seed": seed}, good | {"rank": "2"}, "rank")
    refused({"seed": seed}, {"format": FORMAT, "rank": "0"}, "does not describe a provisioned model")
    refused({"seed": seed}, good | {"public": "[" * 100_000}, "nests too deeply")
    refused({"seed": seed[:31]}, good, "32 bytes")
    refused({"seed": seed, "more": seed}, good, "does not hold the tensors of its model .missing or extra: ")
    tensors = load_file(provisioned / share_file(0))
    refused(tensors | {"head.bias": tensors["head.bias"][:1]}, good, "head.bias")
    refused(tensors | {"head.bias": tensors["head.bias"].astype(np.float64)}, good, "head.bias")
