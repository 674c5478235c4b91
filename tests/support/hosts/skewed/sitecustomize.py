"""Gives every Python process of a test's host the clocks of another machine: ``SKEWED_HOST`` says which."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

from distprof import clock as distprof_clock

if "SKEWED_HOST" in os.environ:
    _host = json.loads(os.environ["SKEWED_HOST"])
    _clocks = runpy.run_path(str(Path(__file__).parents[1] / "clocks.py"))
    _clock = _clocks["SkewedClock"](_host["shift_ns"], _host["drift"], _host["origin_ns"])
    distprof_clock.SystemClock.mono_ns = staticmethod(_clock.mono_ns)
    distprof_clock.SystemClock.wall_ns = staticmethod(_clock.wall_ns)
    distprof_clock.clock_domain = lambda: _host["domain"]
