"""Reasons why the work of the whole model cannot be computed from the ranks: separate meshes, or idle ranks."""

from __future__ import annotations

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.job.per_model_axes import own_axes
from distprof.merge.job.topology import JobTopology
from distprof.merge.job.tp_duplicates import CountedWork
from distprof.merge.load.run import LoadedRun
from distprof.merge.wording import join_words
from distprof.rank_names import rank_names


def why_no_exact_work(analysis: Analysis) -> str:
    """Returns why the work of the model cannot be computed from the ranks that counted; empty where it can."""
    run, layout = analysis.run, analysis.layout
    unplaced = [_named(run, root) for root in own_axes(run) if root not in layout.own]
    if unplaced:
        return (
            f"models are on different meshes, and those of {join_words(unplaced)} do not cover {run.world_size:,} ranks"
        )
    ranks: dict[str, list[int]] = {}  # by model that ran on the job's axes
    ran: dict[CountedWork, set[str]] = {}
    for rank, one in analysis.counted.items():
        if one not in ran:
            ran[one] = _models_run(one, layout)
        for model in ran[one]:
            ranks.setdefault(model, []).append(rank)
    replicas = {model: {layout.piece(rank, ("dp",)) for rank in own} for model, own in ranks.items()}
    every = set().union(*replicas.values())
    partial = next((model for model, seen in replicas.items() if seen != every), None)
    return f"only {rank_names(ranks[partial])} of its data-parallel ranks ran {partial}" if partial else ""


def expert_notes(analysis: Analysis) -> tuple[str, ...]:
    """Returns sentences on models with a mesh of their own whose experts are located by the axes of the job."""
    on_own_meshes = {
        data.tree.roots.get(root, "a model")
        for data in analysis.ranks
        if data.topology is not None and data.topology.roots
        for root in {data.tree.rows[layer.row].root for layer in data.layers}
        if any(own.root == root for own in data.topology.roots)
    }
    return tuple(
        f"{model} has a mesh of its own, but which of its experts a rank hosts is derived from the axes of the job, "
        "and may be wrong"
        for model in sorted(on_own_meshes)
    )


def _models_run(one: CountedWork, layout: JobTopology) -> set[str]:
    """Returns the classes of the models on the job's axes that ran; none in a pipeline, where stages may differ."""
    if layout.info.sizes["pp"] > 1:
        return set()
    tree = one.data.tree
    roots = {tree.rows[row].root for row in np.flatnonzero(one.macs).tolist()} - layout.own.keys()
    return {tree.roots[root] for root in roots & tree.roots.keys()}


def _named(run: LoadedRun, root: int) -> str:
    return next((data.tree.roots[root] for data in run.ranks if root in data.tree.roots), "a model")
