"""MFU and HFU: which share of the devices' peak the job used.

    MFU of a rank = seconds that the model's flops would take at the peak / (its mean wall iteration x its devices)
    MFU of the job = mean of these seconds over the ranks / median over the ranks of their mean wall iterations

Flops are 2 x MACs, without element-wise work, because the peak is that of matrix products.  This is the definition of
the paper that introduced MFU (PaLM, arXiv:2204.02311, appendix B).  The model's flops are those of forward and
backward, each once: causal attention in full, attention's backward as 2 x its forward, nothing recomputed, and work
that tensor-parallel ranks repeat once.  HFU uses the flops that ran instead.  The flops of each arithmetic are divided
by its own peak, and the seconds are added up.

MACs on other devices than the rank's main kind (on the CPU beside a GPU) are left out, and so are those in an
arithmetic without a known peak.  Both figures are lower bounds then, and also where ops without a formula ran, or
kernels that the compiler generated, which may contain products.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.load.window import Window
from distprof.merge.quantities import NS_PER_SECOND
from distprof.merge.report import PeakUsed, Utilization, UtilizationSpread
from distprof.merge.stats import middle
from distprof.merge.wording import pluralise
from distprof.merge.work.missing_reasons import why_uncounted, why_untimed
from distprof.merge.work.own_shares import own_shares
from distprof.peaks.table import Engine, Peaks
from distprof.plain import dataclass
from distprof.rank_names import rank_names
from distprof.records import FLOPS_PER_MAC, Counts, DeviceWork

_NO_PRODUCT = "no matrix product ran"


@dataclass(frozen=True)
class _Ideal:
    """Seconds that one rank's flops would take at the peak of all its devices."""

    model: float
    hardware: float
    at_least: bool


@dataclass(frozen=True)
class Utilizations:
    """The utilization of the job and of its ranks."""

    job: Utilization
    by_rank: dict[int, tuple[float, float]]  # (MFU, HFU)
    notes: tuple[str, ...]  # for the first page


@computed_once
def compute_utilizations(analysis: Analysis) -> Utilizations:
    """Returns MFU and HFU.  Ranks without a counted step, a timed step or a known peak have none."""
    windows, peaks, own = analysis.windows, analysis.peaks, own_shares(analysis)
    counts = {rank: one for rank, one in analysis.counts.items() if rank in own}
    works = _works(counts, own)
    timed = {rank: window for rank, window in windows.items() if _is_timed(window)}
    walls = {rank: float(window.durations_ns.mean()) / NS_PER_SECOND for rank, window in timed.items()}
    medians = [(window.median_ns or 0.0) / NS_PER_SECOND for window in timed.values()]
    by_work = {work: _ideal(work, peaks) for work in set(works.values())}
    ideals = {rank: ideal for rank, work in works.items() if walls.get(rank) and (ideal := by_work[work])}
    mfu = {rank: ideal.model / walls[rank] for rank, ideal in ideals.items()}
    hfu = {rank: ideal.hardware / walls[rank] for rank, ideal in ideals.items()}
    missing = _without_peak(works, peaks)
    why, to_do = ("", "") if ideals else _why(analysis, walls, missing)
    job = Utilization(
        mfu=_spread(mfu, [ideal.model for ideal in ideals.values()], walls, medians),
        hfu=_spread(hfu, [ideal.hardware for ideal in ideals.values()], walls, medians),
        at_least=any(ideal.at_least for ideal in ideals.values()),
        model_flops_per_rank=_flops_per_rank(work.model_macs for work in works.values() if work.rows),
        hardware_flops_per_rank=_flops_per_rank(work.executed_macs for work in works.values() if work.rows),
        peaks=_peaks_used(works, peaks),
        unavailable=why,
        to_do=to_do,
    )
    by_rank = {rank: (mfu[rank], hfu[rank]) for rank in ideals}
    return Utilizations(job, by_rank, _notes(works, by_rank, missing) if by_rank else ())


def _is_timed(window: Window) -> bool:
    """Returns whether steps were timed that are not also the counted one, which counting makes longer."""
    return bool(window.steps) and not (window.counts and window.counts.iteration in window.iterations)


@dataclass(frozen=True, eq=False)
class _Work:
    """The matrix products of one rank, or of several that did the same."""

    rows: tuple[DeviceWork, ...]  # on the kind of device that ran most MACs
    model_macs: int  # on all devices
    executed_macs: int  # on all devices
    whole: bool  # nothing ran on another kind of device, and nothing was not counted


def _works(counts: Mapping[int, Counts], own: Mapping[int, float]) -> dict[int, _Work]:
    """Returns the work by rank, the same object for ranks that did the same."""
    known: dict[tuple[object, ...], _Work] = {}
    found = {}
    for rank, one in counts.items():
        key = one.device_work, bool(one.uncounted), bool(one.generated), own[rank]
        if key not in known:
            known[key] = _on_main_device(one, own[rank])
        found[rank] = known[key]
    return found


def _on_main_device(counts: Counts, own: float) -> _Work:
    """Returns the work of a rank; ``own`` is the share of its MACs that counts for the model."""
    macs: Counter[str] = Counter()
    for row in counts.device_work:
        macs[_kind(row)] += row.executed_macs
    main = max(macs, key=lambda kind: (macs[kind], kind), default="")
    rows = [replace(row, model_macs=round(row.model_macs * own)) for row in counts.device_work]
    return _Work(
        rows=tuple(row for row in rows if _kind(row) == main),
        model_macs=sum(row.model_macs for row in rows),
        executed_macs=sum(row.executed_macs for row in rows),
        whole=len(macs) <= 1 and not counts.uncounted and not counts.generated,
    )


def _kind(row: DeviceWork) -> str:
    return row.device.partition(":")[0]


def _ideal(work: _Work, peaks: Peaks) -> _Ideal | None:
    devices = len({row.device for row in work.rows})
    known = [(row, peak) for row in work.rows if (peak := peaks.find(_engine(row)))]
    if not any(row.executed_macs for row, _ in known):
        return None

    def seconds(macs: Iterable[tuple[int, float]]) -> float:
        return sum(FLOPS_PER_MAC * count / (tflops * 1e12) for count, tflops in macs) / devices

    return _Ideal(
        model=seconds((row.model_macs, peak.tflops) for row, peak in known),
        hardware=seconds((row.executed_macs, peak.tflops) for row, peak in known),
        at_least=not work.whole or len(known) < len(work.rows),
    )


def _engine(row: DeviceWork) -> Engine:
    return Engine(row.name, row.threads, row.arithmetic)


def _spread(
    by_rank: Mapping[int, float], seconds: Sequence[float], walls: Mapping[int, float], medians: Sequence[float]
) -> UtilizationSpread | None:
    """Returns the job's figures, computed from the ranks' ideal ``seconds`` and their mean and median wall iterations,
    and the least and largest of the ranks.
    """
    if not by_rank:
        return None
    ideal = float(np.mean(seconds))
    return UtilizationSpread(
        job=ideal / float(middle(list(walls.values()))),
        at_median=ideal / float(middle(medians)),
        min=min(by_rank.values()),
        max=max(by_rank.values()),
        ranks=len(by_rank),
    )


def _flops_per_rank(macs: Iterable[int]) -> float | None:
    """Returns the mean over the ranks that have MACs; None where none has."""
    flops = [FLOPS_PER_MAC * count for count in macs]
    return float(np.mean(flops)) if flops else None


def _peaks_used(works: Mapping[int, _Work], peaks: Peaks) -> tuple[PeakUsed, ...]:
    """Returns the peaks that any rank was measured against; the engine with most of the model's work comes first."""
    macs: Counter[Engine] = Counter()
    for work, ranks in Counter(works.values()).items():
        for row in work.rows:
            macs[_engine(row)] += ranks * row.model_macs
    found = [(engine, count, peak) for engine, count in macs.items() if (peak := peaks.find(engine))]
    whole = sum(macs.values()) or 1
    return tuple(
        PeakUsed(*engine, tflops=peak.tflops, source=peak.source, share=count / whole)
        for engine, count, peak in sorted(found, key=lambda item: (-item[1], item[0]))
    )


def _without_peak(works: Mapping[int, _Work], peaks: Peaks) -> dict[Engine, list[int]]:
    """Returns the engines without a known peak, with the ranks that ran on them."""
    missing: dict[Engine, list[int]] = defaultdict(list)
    find = cache(peaks.find)
    for rank, work in works.items():
        for row in work.rows:
            if not find(_engine(row)):
                missing[_engine(row)].append(rank)
    return missing


def _why(analysis: Analysis, walls: Mapping[int, float], missing: Mapping[Engine, object]) -> tuple[str, str]:
    """Returns (why there is no MFU, what the user can do about it, which may be empty)."""
    counted = list(analysis.counts.values())
    if not counted:
        return why_uncounted(analysis), ""
    if not any(counts.device_work for counts in counted):
        ran = any(counts.forward_macs.any() for counts in counted)
        return "the shards are of an earlier distprof, which did not record MACs by device" if ran else _NO_PRODUCT, ""
    if not any(walls.values()):
        timed = bool(analysis.timed_windows)
        return "the timed step is also the counted one, which counting makes longer" if timed else why_untimed(
            analysis
        ), ""
    commands = dict.fromkeys(map(_command, missing))
    typed = " and ".join(f"'{command}'" for command in commands)
    return (
        f"no peak is known for {', '.join(map(_named, missing))}",
        f"run {typed} on that machine and merge again, or merge with --peak-tflops",
    )


def _command(engine: Engine) -> str:
    return f"distprof peak --threads {engine.threads}" if engine.threads else "distprof peak"


def _named(engine: Engine) -> str:
    on = f" with {pluralise(engine.threads, 'thread')}" if engine.threads else ""
    return f"{engine.arithmetic or 'an unknown arithmetic'} on {engine.device or 'a device without a name'}{on}"


def _notes(
    works: Mapping[int, _Work], by_rank: Mapping[int, object], missing: Mapping[Engine, list[int]]
) -> tuple[str, ...]:
    """Returns sentences on the ranks and the work that are not in the figures."""
    without = [rank for rank in works if rank not in by_rank]
    notes = [f"MFU and HFU leave out {rank_names(without)}"] if without else []
    notes += [
        f"MFU and HFU leave out what {rank_names(ranks)} ran in {_named(engine)}: no peak is known"
        for engine, ranks in missing.items()
    ]
    return tuple(notes)
