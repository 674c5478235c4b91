"""Process groups that no axis accounts for: the script made them for something, and that may be tensors or stages.

A group is accounted for when its ranks are all those that share a place on the other axes.  Where a stack with getters
of its own, or the script, has told how the job is parallel, nothing is left to ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from distprof.merge.job.topology import INFERRED_SOURCES, JobTopology
from distprof.merge.load.run import LoadedRun
from distprof.merge.wording import number_spans
from distprof.records import WORLD_AXES

_SHOWN = 4


def unknown_groups(run: LoadedRun, layout: JobTopology) -> dict[int, list[tuple[int, ...]]]:
    """By size, the groups of that size, each ascending; none of a single rank or of the whole world."""
    if layout.info.source not in INFERRED_SOURCES:
        return {}
    found: dict[int, set[tuple[int, ...]]] = {}
    for data in run.ranks:
        named = {f"mesh_{name}" for mesh in (data.topology.meshes if data.topology else ()) for name in mesh.names}
        for group in data.topology.groups if data.topology else ():
            ranks = tuple(sorted({*group.ranks}))
            several = 1 < len(ranks) < run.world_size
            if several and group.description not in named and not _accounted_for(ranks, layout):
                found.setdefault(len(ranks), set()).add(ranks)
    return {size: sorted(found[size]) for size in sorted(found)}


def group_notes(groups: dict[int, list[tuple[int, ...]]], world_size: int) -> tuple[str, ...]:
    """What they are, and what to say if they cut the model: one sentence."""
    if not groups:
        return ()
    listed = ", ".join(f"{len(own)} of {size} ranks ({_shown(own)})" for size, own in groups.items())
    calls = dict.fromkeys(_call(size, own, world_size) for size, own in groups.items())
    return (
        f"the script made process groups whose purpose is not known: {listed}; if the ranks of one hold or compute "
        f"parts of a model, and are no replicas, say so: {' or '.join(calls)}",
    )


def _accounted_for(ranks: Sequence[int], layout: JobTopology) -> bool:
    """Whether they are all ranks that share a place on the axes on which they do not differ; or all along a finer one,
    of those that are recorded.
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
    """Neighbours are tensor parallel, ranks at equal distances through the world stages: as set_topology counts."""
    if all(group == tuple(range(group[0], group[0] + size)) and group[0] % size == 0 for group in groups):
        return f"distprof.set_topology(tp={size})"
    distance = world_size // size
    if all(group == tuple(range(group[0], world_size, distance)) for group in groups) and world_size % size == 0:
        return f"distprof.set_topology(pp={size})"
    return f'distprof.set_topology(tp={size}, coordinates={{"tp": ...}})'
