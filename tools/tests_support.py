"""Modules of tests/support for the tools: synthetic runs and reports, and Chromium without a screen."""

from __future__ import annotations

import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

_SUPPORT = Path(__file__).parents[1] / "tests" / "support"


def support(name: str) -> Any:
    """Returns a module of tests/support by its name there, such as ``page.browser``.

    As in tests/conftest.py, ``tests`` is not put on sys.path: ``tests/distprof`` would shadow distprof.
    """
    package = types.ModuleType("support")
    package.__path__ = [str(_SUPPORT)]
    sys.modules.setdefault("support", package)
    return import_module(f"support.{name}")
