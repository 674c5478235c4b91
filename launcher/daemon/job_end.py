"""Finds out when the job of a node has ended, and with it the work of its daemon."""

from __future__ import annotations

import select
import time

from distprof.launcher.daemon.node_watch import NodeWatch
from distprof.rank import procfs

#: Time between two looks at whether the job lives.
_LIVES_S = 0.5
#: Without a launcher to watch, a node without ranks for this time has ended its job.
_EMPTY_S = 30.0


class JobEnd:
    """Knows when the job of this node has ended."""

    def __init__(self, watch: NodeWatch, starter: int, launcher: int | None) -> None:
        self._watch = watch
        self._launcher = launcher
        #: What ends with the job if there is no launcher: the parent of the rank that started the daemon.
        self._parent = (next(procfs.ancestors(starter), 0), 0) if launcher is None else (0, 0)
        if self._parent[0] > 1:
            self._parent = self._parent[0], procfs.started_tick(self._parent[0]) or 0
        self._starter = starter, procfs.started_tick(starter) or 0
        self._empty_since = time.monotonic()
        self._looked_s = -_LIVES_S

    def look_at_once(self) -> None:
        """Lets the next call look, however short ago the last look was: the launcher has ended."""
        self._looked_s = -_LIVES_S

    def has_come(self) -> bool:
        """Looks now and then; called more often."""
        if time.monotonic() - self._looked_s < _LIVES_S:
            return False
        self._looked_s = time.monotonic()
        if self._launcher is not None:
            return bool(select.select([self._launcher], [], [], 0)[0]) and not self._watch.has_live_ranks()
        if self._watch.has_live_ranks() or _lives(*self._starter):
            self._empty_since = time.monotonic()
            return False
        parent, _ = self._parent
        return (parent > 1 and not _lives(*self._parent)) or time.monotonic() - self._empty_since > _EMPTY_S


def _lives(pid: int, tick: int) -> bool:
    return tick > 0 and procfs.started_tick(pid) == tick
