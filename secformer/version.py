"""The version of the package. Roles of different versions refuse each other."""

from __future__ import annotations

__version__ = "0.1.0"
