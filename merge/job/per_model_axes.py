"""Models that lie on axes of their own, such as two on meshes of different shapes; and models of some ranks alone.

The job has one topology.  What a model's own meshes say otherwise stands beside it, root by root, and holds where all
ranks that have the model tell the same sizes, and these make a world.  The exact work of the model needs that, and that
every data-parallel replica runs it: the sum over the ranks is then as many times the model's as there are replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from distprof.merge.job.topology import JobTopology, all_sizes, completed_sizes, sizes_error
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import TopologyInfo
from distprof.records import DEVICE_MESH, OwnAxes


def with_per_model_axes(run: LoadedRun, layout: JobTopology) -> JobTopology:
    """``layout``, and beside it those of the models of which that is known."""
    own = {root: found for root, told in own_axes(run).items() if (found := _layout_of(run, root, told)) is not None}
    return replace(layout, own=own) if own else layout


def own_axes(run: LoadedRun) -> dict[int, dict[int, OwnAxes]]:
    """Returns by root, by rank, the axes that the meshes of that model tell."""
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
    return JobTopology(TopologyInfo(DEVICE_MESH, dict(agreed), {}), coordinates, ())
