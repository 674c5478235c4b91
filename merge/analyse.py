"""Composes the analysis: from the recorded ranks to the :class:`Report` that text, JSON and plots are drawn from.

load_run(path) -> LoadedRun -> analyse -> Report

topology   where every rank stands           align     one module tree for the job
alike      whether replicas are replicas
numbering  which numbers its layers have
totals     how many parameters               profile   work and times of its modules
ranks      one row a rank                     memory    who holds more than its equals
skew       where equals disagree
experts    who got the tokens                 summary   the figures of the whole
utilization   MFU and HFU
work       where all flops of a step are      pipeline  micro-batches and bubbles of its stages
"""

from __future__ import annotations

from distprof.merge.experts.load import expert_layers
from distprof.merge.job.layer_numbers import with_layer_numbers
from distprof.merge.job.module_union import ModuleUnion
from distprof.merge.job.stages import pipeline_position
from distprof.merge.job.topology import job_topology
from distprof.merge.job.unknown_groups import group_notes, unknown_groups
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import ModelTotals, ModelWork, Report, RunInfo
from distprof.merge.skew.skew import skew_over_ranks
from distprof.merge.times.memory import memory_differences
from distprof.merge.times.module_profile import module_stats, time_tables
from distprof.merge.times.pipeline import stage_rows
from distprof.merge.times.rank_rows import rank_rows
from distprof.merge.times.summary import profile_summary_of, work_notes
from distprof.merge.wording import rank_names
from distprof.merge.work.compiled_kernels import compiled_notes, compiled_regions
from distprof.merge.work.counted_groups import counted_groups, counted_ranks
from distprof.merge.work.flops_breakdown import work_rows
from distprof.merge.work.model_flops import experts_per_token, model_work, work_sums
from distprof.merge.work.ops import op_rows
from distprof.merge.work.own_shares import own_shares
from distprof.merge.work.parameter_totals import Totals, parameter_totals
from distprof.merge.work.peaks import DATASHEET_PEAKS, Peaks
from distprof.merge.work.per_model_axes import expert_notes, why_no_exact_work, with_per_model_axes
from distprof.merge.work.replica_check import Doubts, doubts_of, with_kinds, without_totals
from distprof.merge.work.utilization import compute_utilizations


def analyse(run: LoadedRun, peaks: Peaks = DATASHEET_PEAKS) -> Report:
    """The report.  Depends on the records and the peaks alone: the same shards give the same report."""
    layout = with_kinds(run, with_per_model_axes(run, job_topology(run)))
    run, of_stages = with_layer_numbers(run, layout)
    counted = counted_ranks(run, layout)
    parts = counted_groups(run, layout)
    sums = [work_sums(part) for part in parts]
    totals = parameter_totals(run, layout, experts_per_token(sums, run.world_size))
    doubts = doubts_of(run, layout, totals)
    totals = without_totals(totals, doubts)
    pipelines = [pipeline_position(data, layout) for data in run.ranks]
    held_as = {root: name for data in reversed(run.ranks) for root, name in data.parameters.held_as.items()}
    alignment = ModuleUnion([data.tree for data in run.ranks], pipelines, held_as)
    times = time_tables(run, alignment)
    utilizations = compute_utilizations(run, own_shares(parts), peaks)
    why_no_work = doubts.why_no_work or why_no_exact_work(run, layout, counted)
    groups = unknown_groups(run, layout)
    every_group = [group for own in groups.values() for group in own]
    labels = [module.label for module in alignment.modules]
    rows = rank_rows(run, layout, totals, utilizations.by_rank)
    of_ranks = (*doubts.notes, *group_notes(groups, run.world_size))
    of_work = (*work_notes(run), *compiled_notes(run), *utilizations.notes)
    return Report(
        run=_run_info(run, (*layout.notes, *of_ranks, *of_stages, *expert_notes(run), *totals.notes, *of_work)),
        topology=layout.info,
        summary=profile_summary_of(run, layout, totals, doubts.no_totals),
        model=_model(totals, doubts, model_work(sums, run.world_size), why_no_work),
        utilization=utilizations.job,
        modules=module_stats(run, alignment, times),
        ranks=rows,
        memory=memory_differences(rows),
        pipeline=stage_rows(run, layout),
        skew=skew_over_ranks(run, layout, rows, labels, times, every_group),
        experts=expert_layers(run, alignment, layout, counted),
        work=work_rows(run),
        generated=compiled_regions(run, alignment),
        ops=op_rows(run),
    )


def _model(totals: Totals, doubts: Doubts, forward: ModelWork | None, why_no_work: str) -> ModelTotals:
    return ModelTotals(
        params_by_kind=totals.by_kind,
        active_params=totals.active,
        active_is_measured=totals.active_is_measured,
        uncovered=totals.uncovered,
        forward=None if why_no_work else forward,
        why_no_forward=why_no_work,
        assumes_replicas=doubts.assumes_replicas,
    )


def _run_info(run: LoadedRun, notes: tuple[str, ...]) -> RunInfo:
    headers = [data.header for data in run.ranks]
    first = headers[0]
    others = [header.rank for header in headers if header.device != first.device]
    if others:
        notes = (*notes, f"{rank_names(others)} ran on another kind of device than rank {first.rank} ({first.device})")
    return RunInfo(
        run_id=run.run_id,
        name=run.name,
        script=first.script,
        world_size=run.world_size,
        ranks=tuple(data.rank for data in run.ranks),
        missing_ranks=run.missing_ranks,
        incomplete={data.rank: why for data in run.ranks if (why := data.why_incomplete(run.mode))},
        device=first.device,
        device_name=first.device_name,
        hosts=tuple(sorted({header.host for header in headers})),
        torch=first.torch,
        mode=run.mode,
        without_data=tuple(data.rank for data in run.ranks if not data.windows),
        planned_timed_steps=max((data.plan.timed for data in run.ranks if data.plan), default=0),
        notes=(*run.notes, *notes),
    )
