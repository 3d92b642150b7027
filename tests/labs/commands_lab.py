"""Commands as tests run them: in this process, or as users do, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from secformer.cli import main


def run(*arguments: str, stdin: str = "", timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
    """A command as a process."""
    command = [sys.executable, "-m", "secformer", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON, run in this process."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that ends with exit code 1."""
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("secformer: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """A help page; its lines are at most 120 characters long."""
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0 and max(map(len, text.splitlines())) <= 120
    return text
