"""Tensors of a safetensors checkpoint, read one at a time.

bfloat16 has no NumPy type: its 16 bits are the upper half of a float32.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secformer.mpc.errors import ModelError, RangeError
from secformer.mpc.strict_json import read_foreign, read_own

PathLike = str | os.PathLike[str]
BLOCK = 1 << 22  # elements whose reach is looked at at a time
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH = "pytorch_model*.bin"  # what older versions of transformers wrote
KINDS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F64": np.dtype("<f8"),
}


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: its file, offset in bytes, kind (safetensors' name of its dtype) and shape."""

    file: Path
    offset: int
    kind: str
    shape: tuple[int, ...]


class Checkpoint:
    """The tensors of a folder, read by name. An encoder's tensors have the names of a model without a head.

    prefix   what models with a head put before the names of their encoder's tensors, such as "bert.". A tensor is found
             with the prefix and without it, and also under the old names `LayerNorm.gamma` and `LayerNorm.beta`
    buffers  stored tensors, named without the prefix, that are not parameters
    file     the one file to read; by default, the file or files that the folder's weights stand in

    Opening a checkpoint reads the headers only. Raises ModelError for missing, truncated or corrupt files.

    `assumed` holds, for tensors whose shape does not follow from the config's own entries, what was assumed in their
    place: a wrong shape is then explained by it.
    """

    def __init__(self, folder: Path, *, prefix: str = "", buffers: Collection[str] = (), file: str | None = None):
        self.folder, self._prefix, self._buffers = folder, prefix, buffers
        self._stored: dict[str, Stored] = {}
        self._used: set[str] = set()
        self.assumed: dict[str, str] = {}
        self._held: dict[str, np.ndarray] = {}
        self._stored |= _tensors(folder) if file is None else _header(folder / file)

    def include(self, name: str) -> None:
        """Adds the tensors of the folder `name` inside this one, as "name/tensor". Raises ModelError as opening does.
        """
        self._stored |= {f"{name}/{tensor}": where for tensor, where in _tensors(self.folder / name).items()}

    def hold(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Adds tensors that are computed and not stored, in float64."""
        self._held |= {name: np.ascontiguousarray(values, np.float64) for name, values in tensors.items()}
        self._stored |= {name: Stored(self.folder, 0, "F64", values.shape) for name, values in self._held.items()}
        self._used |= self._held.keys()

    def computed(self, name: str) -> bool:
        """Whether a tensor is one that `hold` added."""
        return name in self._held

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """The tensor of this shape, in float64.

        Raises ModelError where the tensor is missing, has another shape, has no float dtype, or holds a value that is
        NaN or infinite.
        """
        values = _to_float(self._map(name, shape), self._where(name).kind)
        self._finite(name, int(values.size - np.count_nonzero(np.isfinite(values))))
        return values

    def blocks(self, name: str, shape: Sequence[int], elements: int) -> Iterator[np.ndarray]:
        """The tensor in float64, in blocks of whole rows and of about so many elements. Raises ModelError as `read`,
        when it comes to the block."""
        stored, kind = self._map(name, shape), self._where(name).kind
        rows = max(1, elements // max(1, int(np.prod(shape[1:]))))
        for start in range(0, len(stored), rows):
            values = _to_float(stored[start : start + rows], kind)
            self._finite(name, int(values.size - np.count_nonzero(np.isfinite(values))))
            yield values

    def _finite(self, name: str, bad: int) -> None:
        if bad:
            raise ModelError(
                f"{self.folder}: tensor {name!r} holds {bad} value(s) that are NaN or infinite; weights must be "
                f"finite. Save the checkpoint again, or use an earlier one"
            )

    def rows(self, name: str, shape: Sequence[int], ids: np.ndarray) -> np.ndarray:
        """The rows of a table (R, C) at ids (N,), as float64 (N, C). Other rows are not read.

        Raises ModelError as `read`, but does not look for NaN.
        """
        return _to_float(self._map(name, shape)[ids], self._where(name).kind)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor. Raises ModelError where it is missing."""
        return self._where(name).shape

    def stored(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """The tensor as it is stored, bfloat16 as float32, which holds it exactly. Raises ModelError as `rows`."""
        raw = np.asarray(self._map(name, shape))
        return _widened(raw) if self._where(name).kind == "BF16" else raw

    def reach(self, name: str, shape: Sequence[int], bound: float) -> float:
        """The largest absolute value. Raises RangeError where it is not below `bound`, and ModelError as `read`."""
        top = max((float(np.abs(block).max(initial=0.0)) for block in self.blocks(name, shape, BLOCK)), default=0.0)
        if not top < bound:
            raise RangeError(
                f"{self.folder}: tensor {name!r} holds the value {top:g}; fixed point can hold only |v| < {bound:g}. "
                f"Raise `magnitude`, or rescale the model"
            )
        return top

    def digest(self, names: Iterable[str]) -> str:
        """SHA-256 of the names, dtypes, shapes and bytes of tensors. A range profile names its weights by it."""
        h = hashlib.sha256()
        for name in sorted(set(names)):
            where = self._where(name)
            h.update(f"{name}:{where.kind}:{where.shape};".encode())
            h.update(self._map(name, where.shape).reshape(-1).view(np.uint8).data)
        return h.hexdigest()

    def unused(self) -> list[str]:
        """The names of the stored tensors that nobody has asked for."""
        known = self._used | {prefix + n for n in self._buffers for prefix in ("", self._prefix)}
        return sorted(self._stored.keys() - known)

    def _find(self, name: str) -> str | None:
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        return next((n for n in (name, self._prefix + name, old, self._prefix + old) if n in self._stored), None)

    def _where(self, name: str) -> Stored:
        found = self._find(name)
        if found is None:
            near = [n for n in self._stored if n.rsplit(".", 2)[-2:] == name.rsplit(".", 2)[-2:]][:3]
            raise ModelError(
                f"{self.folder}: the checkpoint lacks tensor {name!r}{self._either}; it has "
                f"{len(self._stored)} tensors{', such as ' + ', '.join(near) if near else ''}. The weights are not "
                f"those of the architecture that config.json names; copy both from the same model again"
            )
        self._used.add(found)
        return self._stored[found]

    @property
    def _either(self) -> str:
        return f" (with or without {self._prefix!r})" if self._prefix else ""

    def _map(self, name: str, shape: Sequence[int]) -> np.ndarray:
        where = self._where(name)
        if where.kind not in KINDS:
            raise ModelError(
                f"{self.folder}: tensor {name!r} has the dtype {where.kind}; weights must have one of the "
                f"float dtypes {', '.join(KINDS)}"
            )
        if where.shape != tuple(shape):
            raise ModelError(
                f"{self.folder}: tensor {name!r} has shape {where.shape}; config.json asks for {tuple(shape)}"
                f"{' (' + self.assumed[name] + ')' if name in self.assumed else ''}"
            )
        if name in self._held:
            return self._held[name]
        if not np.prod(where.shape):
            return np.zeros(where.shape, KINDS[where.kind])
        try:
            return np.memmap(where.file, KINDS[where.kind], "r", where.offset, where.shape)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read tensor {name!r} from {where.file}: {error}") from error


def _to_float(raw: np.ndarray, kind: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a signalling NaN; `read` refuses every NaN
        return np.asarray(_widened(raw) if kind == "BF16" else raw).astype(np.float64)


def _widened(raw: np.ndarray) -> np.ndarray:
    """bfloat16 as float32."""
    return np.asarray((raw.astype(np.uint32) << np.uint32(16)).view(np.float32))


def conversion(folder: Path) -> str:
    """The command that writes model.safetensors from the PyTorch files of a folder. It runs no code in those files."""
    program = ("import sys, torch; from pathlib import Path; from safetensors.torch import save_file; "
               "d = Path(sys.argv[1]); "
               f"t = {{k: v.clone().contiguous() for f in sorted(d.glob('{TORCH}')) "
               "for k, v in torch.load(f, 'cpu', weights_only=True).items()}; "
               f"save_file(t, d / '{SINGLE}', {{'format': 'pt'}})")
    return f'python -c "{program}" {shlex.quote(str(folder))}'


def _tensors(folder: Path) -> dict[str, Stored]:
    """Names and places of a folder's tensors. Raises ModelError where a file lacks a tensor that the index names."""
    found: dict[str, Stored] = {}
    for file, names in _files(folder):
        header = _header(file)
        if names is not None and (gone := sorted(names - header.keys())):
            raise ModelError(f"{folder / INDEX} says that tensor {gone[0]!r} is in {file.name}, but that file does "
                             f"not have it; copy the checkpoint again")
        found |= header
    return found


def _files(folder: Path) -> list[tuple[Path, set[str] | None]]:
    """The checkpoint's files, each with the names of the tensors that an index says are in it."""
    if (folder / SINGLE).is_file():
        return [(folder / SINGLE, None)]
    index = folder / INDEX
    if not index.is_file():
        hint = f"It has PyTorch files, which can run code when they are loaded. Convert them, in a shell:\n  " \
            f"{conversion(folder)}" if any(folder.glob(TORCH)) else "Give a folder that holds the model's weights."
        raise ModelError(f"{folder} has neither {SINGLE} nor {INDEX}. {hint}")
    try:
        places = read_foreign(index.read_text("utf-8"))["weight_map"]
        by_file: dict[str, set[str]] = {}
        for name, file in places.items():
            if not isinstance(file, str):
                raise TypeError(f"the file of {name!r} is {file!r}")
            by_file.setdefault(file, set()).add(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read {index}: it needs a 'weight_map' ({type(error).__name__}: {error})") from error
    for file in by_file:
        if Path(file).name != file or not (folder / file).is_file():
            raise ModelError(f"{index} names the file {file!r}, which is not in {folder}; copy the missing file")
    return [(folder / file, names) for file, names in by_file.items()]


def _header(file: Path) -> dict[str, Stored]:
    """Names and places of a file's tensors. `safetensors` proves that the file is whole and well formed."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="np") as handle:
            names = set(handle.keys())
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = read_own(stream.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file} is not a readable safetensors file: {error}; copy or download it again") from error
    start = 8 + length
    return {
        name: Stored(file, start + facts["data_offsets"][0], facts["dtype"], tuple(facts["shape"]))
        for name, facts in header.items()
        if name in names
    }
