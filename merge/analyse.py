"""Composes the report: each section is made from the one analysis of the run.

load_run(path) -> LoadedRun -> start_analysis -> Analysis -> sections -> Report
"""

from __future__ import annotations

from distprof.merge.analysis import Analysis, start_analysis
from distprof.merge.collectives.job_clock import clock_section
from distprof.merge.collectives.section import collectives_section
from distprof.merge.experts.load import expert_layers
from distprof.merge.experts.summary import expert_summary
from distprof.merge.experts.traffic import expert_traffic
from distprof.merge.gain_grid import gain_grid
from distprof.merge.hang_rows import hang_rows
from distprof.merge.host_rows import host_rows
from distprof.merge.load.run import LoadedRun
from distprof.merge.next_steps import next_steps
from distprof.merge.report import Report
from distprof.merge.run_info import run_info
from distprof.merge.skew.bursts import long_steps
from distprof.merge.skew.skew import skew_over_ranks
from distprof.merge.skew.verdict import verdict
from distprof.merge.step_timeline import step_timeline
from distprof.merge.time_use import time_use
from distprof.merge.times.memory import memory_section
from distprof.merge.times.module_profile import module_stats, module_times
from distprof.merge.times.pipeline import stage_rows
from distprof.merge.times.rank_rows import rank_rows
from distprof.merge.times.summary import profile_summary
from distprof.merge.warmup import warmup_iterations
from distprof.merge.work.compiled_kernels import compiled_regions
from distprof.merge.work.flops_breakdown import work_rows
from distprof.merge.work.model_totals import model_totals
from distprof.merge.work.ops import op_rows
from distprof.merge.work.utilization import compute_utilizations
from distprof.peaks.table import DATASHEET_PEAKS, Peaks


def analyse(run: LoadedRun, peaks: Peaks = DATASHEET_PEAKS, window: int | None = None) -> Report:
    """Returns the report of one window: that with number ``window``, or the last one.

    It depends on the records and the peaks alone: the same shards give the same report.  Raises UsageError for a window
    that holds nothing.
    """
    return report_of(start_analysis(run, peaks, window))


def report_of(analysis: Analysis) -> Report:
    """Returns the report of an analysis."""
    return Report(
        run=run_info(analysis),
        topology=analysis.layout.info,
        summary=profile_summary(analysis),
        model=model_totals(analysis),
        utilization=compute_utilizations(analysis).job,
        modules=module_stats(analysis),
        ranks=rank_rows(analysis),
        memory=memory_section(analysis),
        pipeline=stage_rows(analysis),
        skew=skew_over_ranks(analysis),
        experts=expert_layers(analysis),
        verdict=verdict(analysis),
        next_steps=tuple(next_steps(analysis)),
        clocks=clock_section(analysis),
        collectives=collectives_section(analysis),
        work=work_rows(analysis),
        generated=compiled_regions(analysis),
        hosts=host_rows(analysis),
        long_steps=long_steps(analysis),
        hangs=hang_rows(analysis),
        gains=gain_grid(analysis),
        timeline=step_timeline(analysis),
        ops=op_rows(analysis),
        module_times=module_times(analysis),
        time=time_use(analysis),
        warmup=warmup_iterations(analysis),
        expert_summary=expert_summary(analysis),
        expert_traffic=expert_traffic(analysis),
    )
