"""Ways to divide the ranks into groups that can be judged as wholes: by host, and by each axis of parallelism."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from distprof.merge.job.topology import JobTopology
from distprof.plain import dataclass
from distprof.records import AXES, WORLD_AXES, expert_position

#: The kind of a partition by host; the other kinds are axes, and "mp", the ranks of one replica of the model.
HOST = "host"
_REPLICA = "mp"


@dataclass(frozen=True)
class RankGroup:
    """``name`` is the host's, or says which of the groups of an axis this is, as ``dp 1, pp 0``."""

    kind: str
    name: str
    ranks: tuple[int, ...]


def partitions(hosts: Mapping[int, str], layout: JobTopology) -> list[list[RankGroup]]:
    """Returns the groups of each way to divide the ranks of ``hosts`` (rank -> host), hosts first.

    A way with one group, or with single ranks only, is left out; so is one that divides like an earlier one.
    """
    found: dict[frozenset[tuple[int, ...]], list[RankGroup]] = {}
    for groups in (_by_name(HOST, hosts), *_by_axes(list(hosts), layout)):
        if 1 < len(groups) < len(hosts):
            found.setdefault(frozenset(group.ranks for group in groups), groups)
    return list(found.values())


def _by_axes(ranks: Sequence[int], layout: JobTopology) -> Iterator[list[RankGroup]]:
    sizes = layout.info.sizes
    for axis in (*AXES, _REPLICA):
        if sizes.get(axis, 1) < 2 or (axis == _REPLICA and not (sizes["tp"] > 1 and sizes["pp"] > 1)):
            continue
        if axis == "ep":
            yield _by_name(axis, {rank: _expert_group(rank, layout) for rank in ranks})
            continue
        inner = ("tp", "pp") if axis == _REPLICA else (axis,)
        outer = [other for other in WORLD_AXES if other not in inner and sizes.get(other, 1) > 1]
        yield _by_name(
            axis, {rank: ", ".join(f"{other} {layout.coordinates[rank][other]}" for other in outer) for rank in ranks}
        )


def _expert_group(rank: int, layout: JobTopology) -> str:
    (part, number), _ = expert_position(layout.coordinates[rank], layout.info.sizes)
    return f"{part}.{number}"


def _by_name(kind: str, names: Mapping[int, str]) -> list[RankGroup]:
    members: dict[str, list[int]] = {}
    for rank, name in names.items():
        members.setdefault(name, []).append(rank)
    shown = {name: "" if kind == "ep" else name for name in members}
    return [RankGroup(kind, shown[name], tuple(sorted(ranks))) for name, ranks in members.items()]
