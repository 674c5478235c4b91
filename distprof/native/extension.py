"""The compiled part of distprof; optional, because its installation needs a compiler."""

from __future__ import annotations

from importlib import import_module
from typing import Any

try:
    compiled: Any = import_module("distprof.native._fast_path")
except ImportError:  # installed without a compiler, or for another Python
    compiled = None
