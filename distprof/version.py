"""The version of distprof; pyproject.toml has the same."""

from __future__ import annotations

__version__ = "0.2.0"
