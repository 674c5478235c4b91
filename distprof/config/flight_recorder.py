"""The size of torch's flight recorder, the ring of collectives: torch reads it when a job makes its first group."""

from __future__ import annotations

from collections.abc import Mapping

from distprof.config.settings import Settings

#: The variables that set the size; torch takes the first that is set.
SIZE_VARIABLES = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
#: torch's own.
DEFAULT_SIZE = 2_000
#: Entries for each timed step.  A step of a large model has some hundreds; a ring that is too small is read earlier.
_STEP_ENTRIES = 500
#: A read takes some microseconds for each entry.
_MOST = 20_000


def ring_variables(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variable that makes the ring large enough for the window; none if the user has set one, if torch's
    own size suffices, or if no collectives are recorded.
    """
    steps = settings.timed + 1 if settings.timed else 0  # with the settling one
    size = min(_MOST, steps * _STEP_ENTRIES)
    is_set = any(name in environment for name in SIZE_VARIABLES)
    return {} if is_set or not settings.collectives or size <= DEFAULT_SIZE else {SIZE_VARIABLES[0]: str(size)}
