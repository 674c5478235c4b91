"""Imports the compiled C code; ``compiled`` is None where it was installed without a compiler."""

from __future__ import annotations

from importlib import import_module
from typing import Any

try:
    compiled: Any = import_module("distprof.native._fast_path")
except ImportError:  # installed without a compiler, or for another Python
    compiled = None
