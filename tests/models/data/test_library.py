"""The `transformers` package is imported once, quietly."""

from __future__ import annotations

import subprocess
import sys

from secformer.models.data.library import transformers


def test_importing_the_library_is_quiet_and_leaves_no_filter() -> None:
    code = ("import logging\nfrom secformer.models.data.library import transformers\nt = transformers()\n"
            "t.AutoConfig\nassert not logging.getLogger('transformers').filters")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_library_is_imported_once() -> None:
    assert transformers() is transformers()
