"""What a target is: one reader of bytes from outside, valid examples, and the contract that the reader keeps.

The contract: a reader accepts, or raises an error of this package. It raises nothing else, ends soon, takes little
memory for a short input, and what it accepts means one thing: written again, it reads as the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutators import Mutate, raw
from secformer.mpc.errors import SecformerError

Read = Callable[[bytes], object]
Open = Callable[[Path], AbstractContextManager[Read]]
CORPUS = Path(__file__).parent / "corpus"


class Broken(Exception):
    """A reader broke its contract: what it accepted, it does not write again as the same."""


@dataclass(frozen=True)
class Target:
    """One reader.

    name    also of its folder in the corpus
    reads   the source files whose reading it drives, from the repository's root
    open    makes the reader, in an empty folder of its own
    mutate  changes an input, so that it is still nearly valid
    longest the longest input, in bytes
    below   libraries whose branches count, too
    """

    name: str
    reads: tuple[str, ...]
    open: Open
    mutate: Mutate = raw
    longest: int = 1 << 14
    below: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of `reads`, and of the libraries below them, whose branches guide the fuzzing."""
        own = (name.removesuffix(".py").replace("/", ".") for name in self.reads)
        return (*(name if name.startswith("secformer.") else f"secformer.{name}" for name in own), *self.below)

    @property
    def corpus(self) -> Path:
        """The folder of its inputs."""
        return CORPUS / self.name

    def inputs(self) -> Iterator[bytes]:
        """The inputs of the corpus, valid examples and others, in a fixed order."""
        return (path.read_bytes() for path in sorted(self.corpus.glob("*")))


def accepted(read: Read, data: bytes) -> bool:
    """Whether a reader takes an input. Raises what breaks the contract."""
    try:
        read(data)
    except SecformerError as error:
        str(error).encode()  # a message that cannot be logged is no message
        return False
    return True


def require(holds: bool, what: str) -> None:
    """Raises Broken."""
    if not holds:
        raise Broken(what)


def stateless(read: Read) -> Open:
    """For a reader that needs no folder."""
    @contextmanager
    def opened(_: Path) -> Iterator[Read]:
        yield read

    return opened


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder in memory, where the system has such a place: readers sync files to disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="secformer-fuzz-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
