"""How long an iteration of a rank may take before it counts as stuck, by its phase and by the rank's own history."""

from __future__ import annotations

from distprof.config.options import DEFAULTS
from distprof.heartbeat.slot import UNUSUAL
from distprof.launcher.daemon.hang_watch.places import CHECKPOINT, COMPILATION, EVALUATION

_NS = 1e9
#: The least limit, unless the user gives another one.
FLOOR_S: float = DEFAULTS["stall"]
#: The 99th percentile of a rank's iterations is multiplied by this.
P99_TIMES = 20
#: So many iterations are the first ones: code is compiled, and memory is allocated.
FIRST = UNUSUAL
#: What the floor is multiplied by in the first iterations and in compilation, and in evaluation and checkpoints.
FIRST_TIMES, LONG_TIMES = 5, 10


def limit_s(iteration: int, p99_ns: int | None, floor_s: float = FLOOR_S, phase: str = "") -> float:
    """Returns the limit of the running iteration in seconds.  ``p99_ns``: of iterations after the first ones."""
    times = 1
    if iteration < FIRST or phase == COMPILATION:
        times = FIRST_TIMES
    if phase in (EVALUATION, CHECKPOINT):
        times = LONG_TIMES
    return max(times * floor_s, P99_TIMES * (p99_ns or 0) / _NS)
