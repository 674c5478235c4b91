"""Process groups that no axis explains: the script made them for a purpose that may be tensors or stages.

An axis explains a group when the ranks of the group are all ranks that share a place on the other axes.  There is no
unknown group where a framework or the script has declared how the job is parallel.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from distprof.merge.job.topology import INFERRED_SOURCES, JobTopology
from distprof.merge.load.run import LoadedRun
from distprof.rank_names import number_spans
from distprof.records import WORLD_AXES

_SHOWN = 4


def unknown_groups(run: LoadedRun, layout: JobTopology) -> dict[int, list[tuple[int, ...]]]:
    """Returns the groups by size, each ascending; none of a single rank or of the whole world."""
    if layout.info.source not in INFERRED_SOURCES:
        return {}
    found: dict[int, set[tuple[int, ...]]] = {}
    for data in run.ranks:
        named = {f"mesh_{name}" for mesh in (data.topology.meshes if data.topology else ()) for name in mesh.names}
        for group in data.topology.groups if data.topology else ():
            ranks = tuple(sorted({*group.ranks}))
            several = 1 < len(ranks) < run.world_size
            if several and group.description not in named and not _is_explained(ranks, layout):
                found.setdefault(len(ranks), set()).add(ranks)
    return {size: sorted(found[size]) for size in sorted(found)}


def group_notes(groups: dict[int, list[tuple[int, ...]]], world_size: int) -> tuple[str, ...]:
    """Returns one sentence on the groups, and the call that declares them if they split the model."""
    if not groups:
        return ()
    listed = ", ".join(f"{len(own)} of {size} ranks ({_shown(own)})" for size, own in groups.items())
    calls = dict.fromkeys(_call(size, own, world_size) for size, own in groups.items())
    return (
        f"the script made process groups whose purpose is not known: {listed}; if the ranks of one hold or compute "
        f"parts of a model, and are no replicas, say so: {' or '.join(calls)}",
    )


def _is_explained(ranks: Sequence[int], layout: JobTopology) -> bool:
    """Returns whether the recorded ones of ``ranks`` are all ranks that share a place on the axes on which they do not
    differ, or all ranks along a finer axis.
    """
    places = [layout.coordinates[rank] for rank in ranks if rank in layout.coordinates]
    sizes = layout.info.sizes
    differ = [axis for axis in WORLD_AXES if len({place[axis] for place in places}) > 1]
    finer = [axis for axis in sizes if axis not in (*WORLD_AXES, "mp") and sizes[axis] == len(ranks)]
    along = any(len({place.get(axis, 0) for place in places}) == len(places) for axis in finer)
    return not places or len(ranks) == prod(sizes[axis] for axis in differ) or along


def _shown(groups: Sequence[tuple[int, ...]]) -> str:
    shown = "; ".join(number_spans(group) for group in groups[:_SHOWN])
    return f"{shown}; ..." if len(groups) > _SHOWN else shown


def _call(size: int, groups: Sequence[tuple[int, ...]], world_size: int) -> str:
    """Returns a call for tensor parallelism for groups of neighbours, and for stages for ranks at equal distances."""
    if all(group == tuple(range(group[0], group[0] + size)) and group[0] % size == 0 for group in groups):
        return f"distprof.set_topology(tp={size})"
    distance = world_size // size
    if all(group == tuple(range(group[0], world_size, distance)) for group in groups) and world_size % size == 0:
        return f"distprof.set_topology(pp={size})"
    return f'distprof.set_topology(tp={size}, coordinates={{"tp": ...}})'
