"""Traces of torch.profiler for some iterations: ``traces/windowN/rankM.json.gz`` in the run's folder.

The files of one window are in one folder, as Holistic Trace Analysis reads them, and Perfetto opens each.  Iterations
are ranges named ``ProfilerStep#41``, by our numbers.  ``distprof`` in a file's metadata says when a range of ours began
on the monotonic clock of our records, and how exact that is, so that both can be put on one time axis.

Only one profiler of torch can run in a process.  That of the script comes first: ours does not start beside it, and
ends when it starts.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.autograd import profiler as autograd_profiler
from torch.autograd import profiler_legacy
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity
from torch.profiler.profiler import _KinetoProfile

from distprof.clock import Clock
from distprof.console import say
from distprof.errors import said
from distprof.external_exceptions import came_from_outside
from distprof.hooks.patches import FunctionEntryPatch
from distprof.rank.identity import Identity
from distprof.run_folder import CLOCK_RANGE, TRACE_ABOUT, TRACE_ITERATION, TRACES, RunFolder
from distprof.safe_folders import make_own, own_folder

#: What torch's profilers call to prepare and to start: :mod:`torch.profiler` and those of :mod:`torch.autograd`.
_STARTS = (
    (autograd_profiler, "_prepare_profiler"),
    (autograd_profiler, "_enable_profiler"),
    (profiler_legacy, "_enable_profiler_legacy"),
)
#: The first ones take longer.
_CLOCK_RANGES = 5


class TorchTrace:
    """The trace of one window at a time.  Whatever fails, the job goes on, and one line says so."""

    def __init__(self, clock: Clock, run: Path) -> None:
        self._clock = clock
        self._run = RunFolder(run)
        self._profile: _KinetoProfile | None = None
        self._range: Any = None  # of the running iteration
        self._about: dict[str, Any] = {}
        self._last_window = 0  # the last one of which a trace was begun
        self._starts = False  # ours starts at this moment
        where = tuple((module, name) for module, name in _STARTS if hasattr(module, name))
        self._other_starts = FunctionEntryPatch(where, "the start of a profiler", self._failed)

    def iteration_begins(self, iteration: int, window: int, identity: Identity) -> None:
        """Begins an iteration that is traced, and with the first one of a window the trace."""
        if self._profile is None and window == self._last_window:
            return  # this window's trace has ended early
        self._last_window = window
        try:
            if self._profile is None:
                self._start(iteration, window, identity)
            else:
                self._end_range()
            self._about["iterations"] += 1
            self._begin_range(iteration)
        except Exception as error:
            self._give_up(error)

    def _start(self, iteration: int, window: int, identity: Identity) -> None:
        self._about = {
            **{"rank": identity.rank, "world_size": identity.world_size, "window": window},
            **{"first_iteration": iteration, "iterations": 0},
        }
        if _other_profiler():
            raise RuntimeError("the script uses a profiler of torch itself")
        self._other_starts.open(self._another_starts)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._profile = _KinetoProfile(activities=activities)
        self._starts = True
        try:
            self._profile.start()
        finally:
            self._starts = False
        self._about["clock"] = self._read_clock()

    def _another_starts(self, _: tuple[Any, ...]) -> None:
        """Leaves the profiler of torch to the script, which is about to start one."""
        if not self._starts and self._profile is not None:
            say(f"{self._who} ends its trace of torch.profiler: the script starts a profiler of its own")
            self.finish()

    def _read_clock(self) -> dict[str, object]:
        """Returns when a range began: of a few, the one around whose begin the clock was read within the least time."""
        found = []
        for number in range(_CLOCK_RANGES):
            opened = record_function(f"{CLOCK_RANGE}{number}")
            before_ns = self._clock.mono_ns()
            opened.__enter__()
            after_ns = self._clock.mono_ns()
            opened.__exit__(None, None, None)
            found.append((after_ns - before_ns, before_ns, number))
        lasted_ns, before_ns, number = min(found)
        error_ns = (lasted_ns + 1) // 2
        return {"range": f"{CLOCK_RANGE}{number}", "mono_ns": before_ns + lasted_ns // 2, "error_ns": error_ns}

    def _begin_range(self, iteration: int) -> None:
        opened = record_function(f"{TRACE_ITERATION}{iteration}")
        opened.__enter__()
        self._range = opened

    def _end_range(self) -> None:
        running, self._range = self._range, None
        if running is not None:
            running.__exit__(None, None, None)

    def finish(self) -> None:
        """Ends the trace, if one runs, and writes it."""
        running, self._profile = self._profile, None
        if running is None:
            return
        try:
            self._end_range()
            running.add_metadata_json(TRACE_ABOUT, json.dumps(self._about))
            if not torch.distributed.is_available() or not torch.distributed.is_initialized():
                place = {name: self._about[name] for name in ("rank", "world_size")}
                running.add_metadata_json("distributedInfo", json.dumps(place))
            running.stop()
            self._write(running)
        except Exception as error:
            self._give_up(error)
        finally:
            self._other_starts.close()

    def _write(self, finished: _KinetoProfile) -> None:
        path = self._run.trace_path(self._about["window"], self._about["rank"])
        make_own(self._run.path, TRACES, shared=True)
        make_own(self._run.path / TRACES, path.parent.name, shared=True)
        scratch = f".{path.name}"
        finished.export_chrome_trace(str(path.with_name(scratch)))
        with own_folder(path.parent) as fd:
            os.replace(scratch, path.name, src_dir_fd=fd, dst_dir_fd=fd)

    @property
    def _who(self) -> str:
        return f"rank {self._about['rank']}"

    def _failed(self, _: str, error: BaseException) -> None:
        self._give_up(error)
        if came_from_outside(error):
            raise error

    def _give_up(self, error: BaseException) -> None:
        running, self._profile = self._profile, None
        # Each of these is done even if another one fails, and the first error is the one that is said.
        with contextlib.suppress(Exception):
            self._end_range()
        with contextlib.suppress(Exception):
            if running is not None:
                running.stop()
        with contextlib.suppress(Exception):
            self._other_starts.close()
        say(f"{self._who} has no trace of torch.profiler, the job goes on: {said(error)}")


def _other_profiler() -> bool:
    """Whether a profiler of the script runs, or has been prepared to."""
    if getattr(torch.autograd, "_profiler_enabled", lambda: False)():
        return True
    return any(
        vars(one).get("entered", False) and vars(one).get("kineto_results") is None
        for one in gc.get_objects()
        if type(one) is autograd_profiler.profile
    )
