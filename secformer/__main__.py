"""`python -m secformer`: the command line."""

from __future__ import annotations

import sys

from secformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
