"""The process groups that this rank is in, and what their makers called them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distprof.records import Group
from distprof.topology.axes import FINE_NAMES, AxisEvidence, axis_of
from distprof.topology.imported import group_ranks, imported

SOURCE = "process_groups"
#: More than these say nothing that a report could show.
_MAX_GROUPS = 256
_MAX_TEXT = 200
#: What descriptions have beside the name of an axis: ``mesh_tp``, ``TENSOR_MODEL_PARALLEL_GROUP``.
_AROUND = (("mesh_", ""), ("_group", ""), ("_process", ""), ("_pg", ""), ("model_parallel", "parallel"))


@dataclass(frozen=True)
class SeenGroup:
    """``backend`` as torch has it; ``ranks`` are global, in the order of the group."""

    name: str
    description: str
    backend: str
    ranks: tuple[int, ...]


def groups() -> list[SeenGroup]:
    """In the order in which they were made.  Never communicates."""
    world = imported("torch.distributed.distributed_c10d", "_world")
    if world is None:
        return []
    return [
        SeenGroup(
            str(world.pg_names.get(group, ""))[:_MAX_TEXT],
            str(getattr(group, "group_desc", ""))[:_MAX_TEXT],
            str(backend).lower(),
            group_ranks(group),
        )
        for group, (backend, _) in list(world.pg_map.items())[:_MAX_GROUPS]
        if group_ranks(group)
    ]


def records(seen: Sequence[SeenGroup], world_size: int) -> tuple[Group, ...]:
    """Those that connect anything."""
    nowhere = fake_group_axes(seen)
    return tuple(
        Group(group.name, group.description, () if len(group.ranks) == world_size else group.ranks)
        for group in seen
        if frozenset(group.ranks) not in nowhere
    )


def group_evidence(seen: Sequence[SeenGroup], *, meshes_were_seen: bool) -> Iterator[AxisEvidence]:
    """What the descriptions say.  Groups that torch made for a mesh say less than the mesh does, where it was seen."""
    for group in seen:
        name = _bare(group.description)
        axis = FINE_NAMES.get(name, axis_of(name))
        of_mesh = group.description.startswith("mesh_")
        if axis is not None and group.backend != "fake" and not (of_mesh and meshes_were_seen):
            yield AxisEvidence(SOURCE, axis, group.ranks)


def fake_group_axes(seen: Sequence[SeenGroup]) -> set[frozenset[int]]:
    """Ranks that only groups with a ``fake`` backend connect; none where the whole world is fake."""
    real = {frozenset(group.ranks) for group in seen if group.backend != "fake"}
    return {frozenset(group.ranks) for group in seen} - real if real else set()


def _bare(description: str) -> str:
    name = description.strip().lower().replace(" ", "_").replace("-", "_")
    for around, instead in _AROUND:
        name = name.replace(around, instead)
    return name.strip("_")
