"""Models that lie on axes of their own, such as two on meshes of different shapes; and models of some ranks alone.

The job has one topology.  What a model's own meshes say otherwise stands beside it, root by root, and holds where all
ranks that have the model tell the same sizes, and these make a world.  The exact work of the model needs that, and that
every data-parallel replica runs it: the sum over the ranks is then as many times the model's as there are replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from distprof.merge.job.topology import JobTopology, all_sizes, completed_sizes, sizes_error
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import TopologyInfo
from distprof.merge.wording import join_words, rank_names
from distprof.merge.work.tp_duplicates import CountedRank
from distprof.records import OwnAxes

_SOURCE = "device_mesh"


def with_per_model_axes(run: LoadedRun, layout: JobTopology) -> JobTopology:
    """``layout``, and beside it those of the models of which that is known."""
    own = {root: found for root, told in _told(run).items() if (found := _layout_of(run, root, told)) is not None}
    return replace(layout, own=own) if own else layout


def expert_notes(run: LoadedRun) -> tuple[str, ...]:
    """Of models whose experts are placed by the axes of the job, and not by their own."""
    told = {
        data.tree.roots.get(root, "a model")
        for data in run.ranks
        for root in {data.tree.rows[layer.row].root for layer in data.layers}
        if any(own.root == root for own in (data.topology.roots if data.topology else ()))
    }
    return tuple(
        f"{model} lies on a mesh of its own: which of its experts a rank hosts is told from the axes of the job, and "
        "may be wrong"
        for model in sorted(told)
    )


def why_no_exact_work(run: LoadedRun, layout: JobTopology, counted: Mapping[int, CountedRank]) -> str:
    """Why the work of the model cannot be told from that of the ranks that counted; empty where it can."""
    unplaced = [_named(run, root) for root in _told(run) if root not in layout.own]
    if unplaced:
        return (
            f"models on different meshes, and those of {join_words(unplaced)} are no world of {run.world_size:,} ranks"
        )
    ranks: dict[str, list[int]] = {}  # by model that ran on the job's axes
    for rank, one in counted.items():
        for model in _models_run(one, layout):
            ranks.setdefault(model, []).append(rank)
    replicas = {model: {layout.piece(rank, ("dp",)) for rank in own} for model, own in ranks.items()}
    every = set().union(*replicas.values())
    partial = next((model for model, seen in replicas.items() if seen != every), None)
    return f"only {rank_names(ranks[partial])} of its data-parallel ranks ran {partial}" if partial else ""


def _told(run: LoadedRun) -> dict[int, dict[int, OwnAxes]]:
    """By root and rank."""
    found: dict[int, dict[int, OwnAxes]] = {}
    for data in run.ranks:
        for own in data.topology.roots if data.topology else ():
            found.setdefault(own.root, {})[data.rank] = own
    return found


def _layout_of(run: LoadedRun, root: int, told: Mapping[int, OwnAxes]) -> JobTopology | None:
    having = {data.rank for data in run.ranks if root in data.tree.roots}
    sizes = {all_sizes(own.sizes) for own in told.values()}
    if len(sizes) > 1 or told.keys() != having:
        return None
    (agreed,) = sizes
    coordinates = {rank: completed_sizes(own.coordinates, agreed) for rank, own in told.items()}
    if sizes_error(dict(agreed), coordinates, run.world_size):
        return None
    return JobTopology(TopologyInfo(_SOURCE, dict(agreed), {}), coordinates, ())


def _models_run(one: CountedRank, layout: JobTopology) -> set[str]:
    """By class, those on the job's axes; not in a pipeline, whose stages may be of several classes."""
    if layout.info.sizes["pp"] > 1:
        return set()
    tree = one.data.tree
    roots = {tree.rows[row].root for row in np.flatnonzero(one.macs).tolist()} - layout.own.keys()
    return {tree.roots[root] for root in roots & tree.roots.keys()}


def _named(run: LoadedRun, root: int) -> str:
    return next((data.tree.roots[root] for data in run.ranks if root in data.tree.roots), "a model")
