"""What every section of the report starts from: the run in its one mode, and what several sections need of it.

A section is a function of the :class:`Analysis` and of nothing else.  What one section makes for others is decorated
with :func:`computed_once`, so that the order in which sections are made does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from functools import cached_property, wraps
from typing import Any, TypeVar

from distprof.merge.job.cohorts import cohort_numbers
from distprof.merge.job.counted_groups import CountedGroup, counted_groups, counted_ranks
from distprof.merge.job.iterations import job_iterations
from distprof.merge.job.layer_numbers import with_layer_numbers
from distprof.merge.job.module_labels import names_in_holders
from distprof.merge.job.module_union import ModuleUnion
from distprof.merge.job.per_model_axes import with_per_model_axes
from distprof.merge.job.rank_kinds import with_kinds
from distprof.merge.job.stages import Pipeline, pipeline_position
from distprof.merge.job.topology import JobTopology, job_topology
from distprof.merge.job.tp_duplicates import CountedWork
from distprof.merge.job.unknown_groups import unknown_groups
from distprof.merge.load.rank import RankData
from distprof.merge.load.run import LoadedRun
from distprof.merge.load.window import Window
from distprof.merge.report import Iterations
from distprof.peaks.table import DATASHEET_PEAKS, Peaks
from distprof.plain import dataclass
from distprof.records import TRAINING, Counts, Plan

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Analysis:
    """One run in one mode, its topology, and what is computed once from them."""

    run: LoadedRun  # layers have their numbers in the whole model
    mode: str  # of the iterations: records.TRAINING or records.FORWARD
    window: int  # the number of the window that the report shows
    layout: JobTopology
    pipelines: dict[int, Pipeline]  # by rank
    layer_notes: tuple[str, ...]  # what was done about layers that each stage counts from 0
    peaks: Peaks
    _results: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    @property
    def ranks(self) -> tuple[RankData, ...]:
        """The recorded ranks, ascending."""
        return self.run.ranks

    @property
    def trains(self) -> bool:
        """Whether an iteration trains."""
        return self.mode == TRAINING

    def of_window(self, number: int) -> Analysis:
        """Returns the analysis of another window; what does not depend on the window is not computed again."""
        other = replace(self, window=number, _results={})
        other.__dict__.update({name: getattr(self, name) for name in ("union", "cohorts", "unknown_groups")})
        return other

    @cached_property
    def windows(self) -> dict[int, Window]:
        """Returns the window of the report by rank, of the ranks that have it."""
        key = self.mode, self.window
        return {data.rank: data.windows[key] for data in self.ranks if key in data.windows}

    @property
    def plans(self) -> list[Plan]:
        """Returns what the ranks planned for the window of the report."""
        return [data.plans[self.window] for data in self.ranks if self.window in data.plans]

    @cached_property
    def timed_windows(self) -> dict[int, Window]:
        """Returns the windows by rank, of the ranks that timed a step."""
        return {rank: window for rank, window in self.windows.items() if window.steps}

    @cached_property
    def iterations(self) -> Iterations | None:
        """Returns the wall time of the job's iterations; None without a timed step."""
        return job_iterations(self.timed_windows)

    @cached_property
    def counts(self) -> dict[int, Counts]:
        """Returns the counted steps by rank, of the ranks that have one."""
        return {rank: window.counts for rank, window in self.windows.items() if window.counts is not None}

    @cached_property
    def union(self) -> ModuleUnion:
        """Returns the module tree of the whole job; its columns are the recorded ranks, ascending."""
        trees, pipelines = [data.tree for data in self.ranks], list(self.pipelines.values())
        return ModuleUnion(trees, pipelines, names_in_holders(self.run))

    @cached_property
    def counted(self) -> dict[int, CountedWork]:
        """Returns what each rank counted, all its models together, of the ranks that counted."""
        return counted_ranks(self.ranks, self.counts, self.layout)

    @cached_property
    def counted_groups(self) -> list[CountedGroup]:
        """Returns what the ranks counted, apart for models on axes of their own."""
        whole = CountedGroup(self.layout, self.counted, self.pipelines)
        return counted_groups(whole, self.ranks, self.counts)

    @cached_property
    def cohorts(self) -> dict[int, int]:
        """Returns by rank the number of its cohort."""
        return cohort_numbers(self.ranks, self.layout)

    @cached_property
    def unknown_groups(self) -> dict[int, list[tuple[int, ...]]]:
        """Returns by size the process groups whose purpose is not known."""
        return unknown_groups(self.run, self.layout)


def start_analysis(run: LoadedRun, peaks: Peaks = DATASHEET_PEAKS, window: int | None = None) -> Analysis:
    """Returns the analysis of ``run``, in training where any rank trained, else in forward.

    ``window`` is the number of the window to show, None for the last one.  Raises UsageError if it holds nothing.
    """
    shown = run.window_to_show(window)
    layout = with_kinds(run, with_per_model_axes(run, job_topology(run)))
    pipelines = {data.rank: pipeline_position(data, layout) for data in run.ranks}
    numbered, notes = with_layer_numbers(run, layout, pipelines)
    return Analysis(numbered, run.mode, shown, layout, pipelines, notes, peaks)


def computed_once(section: Callable[[Analysis], Result]) -> Callable[[Analysis], Result]:
    """Makes ``section`` return what it returned for the same analysis before."""

    @wraps(section)
    def computed(analysis: Analysis) -> Result:
        if section not in analysis._results:
            analysis._results[section] = section(analysis)
        result: Result = analysis._results[section]
        return result

    return computed
