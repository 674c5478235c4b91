"""Models that lie on axes of their own, such as two models on meshes of different shapes.

The job has one topology.  A model whose meshes differ from it gets a topology of its own, where all ranks that have the
model recorded the same sizes, and these multiply to the world size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from distprof.merge.job.topology import JobTopology, all_sizes, completed_sizes, sizes_error
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import TopologyInfo
from distprof.records import DEVICE_MESH, OwnAxes


def with_per_model_axes(run: LoadedRun, layout: JobTopology) -> JobTopology:
    """Returns ``layout`` with the topologies of the models on axes of their own, where these are known."""
    own = {root: found for root, axes in own_axes(run).items() if (found := _layout_of(run, root, axes)) is not None}
    return replace(layout, own=own) if own else layout


def own_axes(run: LoadedRun) -> dict[int, dict[int, OwnAxes]]:
    """Returns by root, by rank, the axes that the meshes of that model tell."""
    found: dict[int, dict[int, OwnAxes]] = {}
    for data in run.ranks:
        for own in data.topology.roots if data.topology else ():
            found.setdefault(own.root, {})[data.rank] = own
    return found


def _layout_of(run: LoadedRun, root: int, axes: Mapping[int, OwnAxes]) -> JobTopology | None:
    having = {data.rank for data in run.ranks if root in data.tree.roots}
    sizes = {all_sizes(own.sizes) for own in axes.values()}
    if len(sizes) > 1 or axes.keys() != having:
        return None
    (agreed,) = sizes
    coordinates = {rank: completed_sizes(own.coordinates, agreed) for rank, own in axes.items()}
    if sizes_error(dict(agreed), coordinates, run.world_size):
        return None
    return JobTopology(TopologyInfo(DEVICE_MESH, dict(agreed), {}), coordinates, ())
