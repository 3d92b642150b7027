"""The page's JavaScript, run by node: one process for a list of jobs (see `core_driver.mjs`)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

import secformer.page
from secformer.page.model import page_model

CORE = Path(secformer.page.__path__[0]) / "static/core"
DRIVER = Path(__file__).with_name("core_driver.mjs")


class Core:
    """One node process, which takes a job at a time. It ends with the block."""

    def __enter__(self) -> Self:
        node = shutil.which("node")
        if node is None:
            pytest.skip("node is not installed, which runs the page's JavaScript outside of a browser")
        self._process = subprocess.Popen([node, str(DRIVER), str(CORE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def ask(self, **job: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


def core(jobs: list[dict[str, Any]]) -> list[Any]:
    """What each job gives. Skips the test where node is not installed."""
    with Core() as process:
        return [process.ask(**job) for job in jobs]


def text_of(data: bytes) -> str:
    """Bytes as jobs hold them."""
    return base64.b64encode(data).decode()


def bytes_of(text: str) -> bytes:
    return base64.b64decode(text)


def write_page(clients: Path, folder: Path) -> Path:
    """The page's model folder of a clients' folder."""
    folder.mkdir(parents=True)
    for name, content in page_model(clients).items():
        (folder / name).write_bytes(content)
    return folder
