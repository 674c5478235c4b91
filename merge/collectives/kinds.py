"""What a group of ranks is for: the axes of parallelism along which its members differ."""

from __future__ import annotations

from distprof.merge.job.topology import JobTopology
from distprof.records import WORLD_AXES

WORLD = "world"


def group_kind(layout: JobTopology, members: tuple[int, ...], world_size: int, name: str) -> str:
    """Returns ``dp``, ``tp``, ``dp x tp``, ...; ``world`` for all ranks of more axes than one; the group's name where
    the axes do not tell.
    """
    places = [layout.coordinates[rank] for rank in members if rank in layout.coordinates]
    if len(places) < 2:
        return name
    if layout.info.sizes["ep"] > 1 and members == layout.groups(members[0], layout.coordinates).get("ep"):
        return "ep"
    axes = [axis for axis in WORLD_AXES if len({place[axis] for place in places}) > 1]
    if len(members) == world_size and len(axes) != 1:
        return WORLD
    return " x ".join(axes) or name
