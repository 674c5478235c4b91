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

from distprof.merge.align import Alignment
from distprof.merge.alike import Doubts, doubts_of, with_kinds, without_totals
from distprof.merge.compiled import compiled_notes, compiled_regions
from distprof.merge.experts import expert_layers
from distprof.merge.groups import group_notes, unknown_groups
from distprof.merge.load import LoadedRun
from distprof.merge.memory import differences
from distprof.merge.model_work import experts_per_token, model_work, work_sums
from distprof.merge.numbering import numbered
from distprof.merge.once import own_shares
from distprof.merge.ops import op_rows
from distprof.merge.own_axes import expert_notes, why_no_exact_work, with_own_axes
from distprof.merge.parts import counted_parts, counted_ranks
from distprof.merge.peaks import ONLY_THE_MAKERS, Peaks
from distprof.merge.pipeline import stage_rows
from distprof.merge.profile import module_stats, time_tables
from distprof.merge.ranks import rank_rows
from distprof.merge.report import ModelTotals, ModelWork, Report, RunInfo
from distprof.merge.skew import skew_of
from distprof.merge.stages import pipeline_of
from distprof.merge.summary import summary_of, work_notes
from distprof.merge.topology import layout_of
from distprof.merge.totals import Totals, totals_of
from distprof.merge.utilization import utilizations_of
from distprof.merge.words import rank_names
from distprof.merge.work import work_rows


def analyse(run: LoadedRun, peaks: Peaks = ONLY_THE_MAKERS) -> Report:
    """The report.  Depends on the records and the peaks alone: the same shards give the same report."""
    layout = with_kinds(run, with_own_axes(run, layout_of(run)))
    run, of_stages = numbered(run, layout)
    counted = counted_ranks(run, layout)
    parts = counted_parts(run, layout)
    sums = [work_sums(part) for part in parts]
    totals = totals_of(run, layout, experts_per_token(sums, run.world_size))
    doubts = doubts_of(run, layout, totals)
    totals = without_totals(totals, doubts)
    pipelines = [pipeline_of(data, layout) for data in run.ranks]
    held_as = {root: name for data in reversed(run.ranks) for root, name in data.parameters.held_as.items()}
    alignment = Alignment([data.tree for data in run.ranks], pipelines, held_as)
    times = time_tables(run, alignment)
    utilizations = utilizations_of(run, own_shares(parts), peaks)
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
        summary=summary_of(run, layout, totals, doubts.no_totals),
        model=_model(totals, doubts, model_work(sums, run.world_size), why_no_work),
        utilization=utilizations.job,
        modules=module_stats(run, alignment, times),
        ranks=rows,
        memory=differences(rows),
        pipeline=stage_rows(run, layout),
        skew=skew_of(run, layout, rows, labels, times, every_group),
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
