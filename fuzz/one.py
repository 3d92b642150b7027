"""Fuzzes one target in this process, by `atheris`: python -m fuzz.one NAME FINDINGS MODULES ARGUMENTS.

MODULES, with commas between them, are those whose branches count; ARGUMENTS are libFuzzer's.

An input that breaks the contract is kept in the folder FINDINGS, one for each place that fails, and the fuzzing goes
on. A hang or too much memory ends the process.
"""

from __future__ import annotations

import hashlib
import logging
import resource
import sys
import traceback
from pathlib import Path
from random import Random

import atheris

ROOM = 1 << 29  # bytes of address space that inputs may take beyond what the process has after its first inputs


class Findings:
    """Inputs that broke the contract, in a folder, each with its traceback."""

    def __init__(self, folder: Path):
        self._folder, self._known = folder, set[str]()

    def add(self, data: bytes, error: BaseException) -> None:
        """Keeps an input, unless another one failed at the same place in the same way."""
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        name = hashlib.sha256(f"{type(error)}{places[-1]}{places[-3:]}".encode()).hexdigest()[:12]
        if name not in self._known:
            self._known.add(name)
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_bytes(data)
            story = "".join(traceback.format_exception(error))[-6000:]
            (self._folder / f"{name}.txt").write_text(story, "utf-8", "backslashreplace")


def main(arguments: list[str]) -> None:
    with atheris.instrument_imports(include=arguments[3].split(","), enable_loader_override=False):
        from fuzz.target import accepted, scratch
        from fuzz.targets import TARGETS
    target = {each.name: each for each in TARGETS}[arguments[1]]
    findings = Findings(Path(arguments[2]))
    logging.disable(logging.WARNING)  # a reader may say much; a defect is logged as an error
    with scratch() as folder, target.open(folder) as read:

        def one(data: bytes) -> None:
            try:
                accepted(read, data)
            except Exception as error:
                findings.add(data, error)

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            return target.mutate(data, most, Random(seed))

        for data in target.inputs():  # what the reader loads once must be there before memory is limited
            one(data)
        _limit_memory()
        atheris.Setup([arguments[0], *arguments[4:], f"-max_len={target.longest}"], one, custom_mutator=mutate)
        atheris.Fuzz()  # ends the process


def _limit_memory() -> None:
    """A short input that makes a reader allocate much ends in a MemoryError, which is a finding."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)


if __name__ == "__main__":
    main(sys.argv)
