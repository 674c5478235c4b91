"""Warns of what a profile's totals lack, for callers who ask for numbers and print no report."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from distprof.standalone.report import NEVER_CALLED, Profile

_OWN = str(Path(__file__).parent)
_SHOWN = 5


def warn_of_gaps(profile: Profile) -> None:
    """Warns, at the script's line, of a model that was never called, and of ops that were not counted."""
    if not profile.steps:
        _warn(NEVER_CALLED)
    elif profile.report.summary.uncounted_ops:
        ops = [f"{name} ({calls:,})" for name, calls in profile.report.summary.uncounted_ops.items()]
        more = f" and {len(ops) - _SHOWN:,} more" if len(ops) > _SHOWN else ""
        _warn(
            f"ops without a formula are not in the totals: {', '.join(ops[:_SHOWN])}{more}; "
            "FlopsProfiler.get_uncounted() has all, distprof.register_formula() takes formulas"
        )


def _warn(text: str) -> None:
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=level)
