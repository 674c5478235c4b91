"""Gives every Python process of a test's host the clocks and the network of that host: ``SKEWED_HOST`` says which."""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import sys
from pathlib import Path

from distprof import clock as distprof_clock

_CLONE_NEWNET = 0x40000000

if "SKEWED_HOST" in os.environ:
    _host = json.loads(os.environ["SKEWED_HOST"])
    _clocks = runpy.run_path(str(Path(__file__).parents[1] / "clocks.py"))
    _clock = _clocks["SkewedClock"](_host["shift_ns"], _host["drift"], _host["origin_ns"])
    distprof_clock.SystemClock.mono_ns = staticmethod(_clock.mono_ns)
    distprof_clock.SystemClock.wall_ns = staticmethod(_clock.wall_ns)
    # In a fork that has imported torch, modules of the recorder have it by now.
    for _names in [vars(module) for name, module in sys.modules.items() if name.startswith("distprof.")]:
        if "clock_domain" in _names:
            _names["clock_domain"] = lambda: _host["domain"]
    if _host["namespace"]:
        _library = ctypes.CDLL(None, use_errno=True)
        with Path(_host["namespace"]).open() as _file:
            if _library.setns(_file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), _host["namespace"])
