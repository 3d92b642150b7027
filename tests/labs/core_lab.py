"""The page's JavaScript, run by node: one process for a list of jobs (see `core_driver.mjs`)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import secformer.page
from secformer.page.model import page_model

CORE = Path(secformer.page.__path__[0]) / "static/core"
DRIVER = Path(__file__).with_name("core_driver.mjs")


def core(jobs: list[dict[str, Any]]) -> list[Any]:
    """What each job gives. Skips the test where node is not installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, which runs the page's JavaScript outside of a browser")
    done = subprocess.run([node, str(DRIVER), str(CORE)], input=json.dumps(jobs).encode(), capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: list[Any] = json.loads(done.stdout)
    return found


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
