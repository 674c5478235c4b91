"""MFU of one rank in its last window, by the definition of the report (distprof.merge.work.utilization).

    seconds that the model's flops would take at the peak / (mean wall iteration x devices)

A rank does not know which work other tensor-parallel ranks repeat: it counts here on each of them.
"""

from __future__ import annotations

import contextlib

from distprof.errors import DistprofError
from distprof.heartbeat.slot import WindowWork
from distprof.peaks.cache import cache_file, read_peak_cache
from distprof.peaks.table import Engine, Peaks, possible
from distprof.run_folder import RunFolder

_FLOPS_PER_MAC = 2
_NS = 1e9


def known_peaks(run: RunFolder) -> Peaks:
    """Returns the peak that the run's options give, else the makers' figures and what was measured on this machine."""
    given: object = None
    with contextlib.suppress(DistprofError):
        manifest = run.read_manifest()
        given = manifest.shown.get("peak_tflops") if manifest is not None else None
    measured, _ = read_peak_cache(cache_file())
    return Peaks(float(given) if isinstance(given, int | float) and possible(given) else None, measured)


def mfu(work: WindowWork, peaks: Peaks) -> float | None:
    """Returns the MFU; None where nothing was counted or timed, and where one of the peaks is not known."""
    if work.mean_ns <= 0 or work.devices <= 0 or not work.macs:
        return None
    seconds = 0.0
    for row in work.macs:
        peak = peaks.find(Engine(row.device, row.threads, row.arithmetic))
        if peak is None:
            return None
        seconds += _FLOPS_PER_MAC * row.macs / (peak.tflops * 1e12)
    return seconds / work.devices / (work.mean_ns / _NS)
