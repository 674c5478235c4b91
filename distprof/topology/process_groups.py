"""The process groups that this rank is in, and the axes that their descriptions name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distprof.records import PROCESS_GROUPS, Group
from distprof.topology.axes import FINE_NAMES, AxisEvidence, axis_of
from distprof.topology.imported import group_ranks, imported

#: A report could not show more groups.
_MAX_GROUPS = 256
_MAX_TEXT = 200
#: Parts of descriptions that surround the name of an axis: ``mesh_tp``, ``TENSOR_MODEL_PARALLEL_GROUP``.
_DECORATIONS = (("mesh_", ""), ("_group", ""), ("_process", ""), ("_pg", ""), ("model_parallel", "parallel"))


@dataclass(frozen=True)
class SeenGroup:
    """A process group: ``backend`` as torch names it, or ``cpu:gloo,cuda:nccl``; ``ranks`` are global, in the order of
    the group.
    """

    name: str
    description: str
    backend: str
    ranks: tuple[int, ...]


def groups() -> list[SeenGroup]:
    """Returns this process's groups in the order of creation.  Never communicates."""
    world = imported("torch.distributed.distributed_c10d", "_world")
    if world is None:
        return []
    return [
        SeenGroup(
            str(world.pg_names.get(group, ""))[:_MAX_TEXT],
            str(getattr(group, "group_desc", ""))[:_MAX_TEXT],
            _backend_name(world, group, backend),
            ranks,
        )
        for group, (backend, _) in list(world.pg_map.items())[:_MAX_GROUPS]
        if (ranks := group_ranks(group))
    ]


def reached(group: Any) -> int | None:
    """Returns how many ops a group of torch's has enqueued here; None where its backend does not count them."""
    try:
        return int(group._get_sequence_number_for_group())
    except (AttributeError, RuntimeError):
        return None


def all_reached() -> dict[str, int | None]:
    """Returns how many ops each group has enqueued here, by the name of the group."""
    world = imported("torch.distributed.distributed_c10d", "_world")
    if world is None:
        return {}
    return {str(name)[:_MAX_TEXT]: reached(group) for group, name in list(world.pg_names.items())}


def _backend_name(world: Any, group: Any, backend: object) -> str:
    """Returns torch's name of a backend; for a group that has one for each device type their list: ``cpu:gloo,...``."""
    name = str(backend).lower()
    if name != "undefined":
        return name
    return str(getattr(world, "pg_backend_config", {}).get(group, name)).lower()[:_MAX_TEXT]


def records(seen: Sequence[SeenGroup], world_size: int) -> tuple[Group, ...]:
    """Returns the records of all groups, except those that only fake backends connect."""
    fakes = fake_group_axes(seen)
    return tuple(
        Group(group.name, group.description, () if len(group.ranks) == world_size else group.ranks, group.backend)
        for group in seen
        if not fakes or frozenset(group.ranks) not in fakes
    )


def group_evidence(seen: Sequence[SeenGroup], *, meshes_were_seen: bool) -> Iterator[AxisEvidence]:
    """Yields the axes that the descriptions name.  Skips groups that torch made for a mesh if meshes were seen."""
    for group in seen:
        name = _axis_name(group.description)
        axis = FINE_NAMES.get(name, axis_of(name))
        is_of_mesh = group.description.startswith("mesh_")
        if axis is not None and group.backend != "fake" and not (is_of_mesh and meshes_were_seen):
            yield AxisEvidence(PROCESS_GROUPS, axis, group.ranks)


def fake_group_axes(seen: Sequence[SeenGroup]) -> set[frozenset[int]]:
    """Returns the sets of ranks that only groups with a ``fake`` backend connect; none if all groups are fake."""
    fakes = [group for group in seen if group.backend == "fake"]
    if len(fakes) in (0, len(seen)):  # as in most jobs
        return set()
    real = {frozenset(group.ranks) for group in seen if group.backend != "fake"}
    return {frozenset(group.ranks) for group in fakes} - real


def _axis_name(description: str) -> str:
    name = description.strip().lower().replace(" ", "_").replace("-", "_")
    for decoration, replacement in _DECORATIONS:
        name = name.replace(decoration, replacement)
    return name.strip("_")
