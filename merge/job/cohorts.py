"""Which ranks do equal work, so that they can be compared: the cohorts.

Ranks of one role are a cohort.  Tensor-parallel ranks with pieces of the same sizes are in it as well: they do the same
work on other columns of the same matrices, and a cohort of eight tells more than four of two.
"""

from __future__ import annotations

from collections.abc import Sequence

from distprof.merge.job.topology import JobTopology
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.rank import RankData
from distprof.records import AXES

Role = tuple[int, ...]
_TP = tuple(axis for axis in AXES if axis not in ("dp", "ep")).index("tp")


def cohort_numbers(ranks: Sequence[RankData], layout: JobTopology) -> dict[int, int]:
    """Returns by rank the number of its cohort; cohorts are numbered in the order of their coordinates."""
    uneven = _uneven_roles(ranks, layout)
    cohort = {}
    for data in ranks:
        role = layout.role(data.rank)
        cohort[data.rank] = role if _without_tp(role) in uneven else _without_tp(role)
    number = {role: index for index, role in enumerate(sorted(set(cohort.values())))}
    return {rank: number[role] for rank, role in cohort.items()}


def _without_tp(role: Role) -> Role:
    """Returns what the roles of ranks have in common that differ in their place on tp only."""
    return (*role[:_TP], 0, *role[_TP + 1 :])


def _uneven_roles(ranks: Sequence[RankData], layout: JobTopology) -> set[Role]:
    """Returns the roles, without tp, of ranks that differ in their modules or in the sizes of their parameters."""
    first: dict[Role, RankTree] = {}
    uneven = set()
    for data in ranks:
        role = _without_tp(layout.role(data.rank))
        tree = first.setdefault(role, data.tree)
        if tree is not data.tree and tree.rows != data.tree.rows:
            uneven.add(role)
    return uneven
