"""Which ranks of a tensor-parallel group saw the same tokens of one MoE layer: only the first of them counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from distprof.merge.arrays import IntArray
from distprof.merge.job.tp_duplicates import CountedWork
from distprof.records import ExpertLayer


class TokensOfRank(Protocol):
    """What one rank counted in one layer, step by step."""

    @property
    def rank(self) -> int:
        """The rank that counted."""

    @property
    def layer(self) -> ExpertLayer:
        """The layer that was counted, as the rank recorded it."""

    @property
    def iterations(self) -> tuple[int, ...]:
        """The iterations that were counted, ascending."""

    def at(self, iterations: Sequence[int]) -> IntArray:
        """Returns the counts as (iterations, experts), for the given iterations only."""


Tokens = TypeVar("Tokens", bound=TokensOfRank)


def distinct(
    every: Iterable[Tokens],
    group: Callable[[Tokens], Hashable],
    counted: Mapping[int, CountedWork],
    are_slices: Callable[[Tokens], bool] = lambda _: False,
) -> list[Tokens]:
    """Returns what the ranks counted; of those of one ``group`` that saw the same tokens, only the first.

    ``are_slices``: tensor parallelism slices the experts, so that all ranks of the group see the same tokens.
    """
    groups: dict[Hashable, list[Tokens]] = {}
    for one in every:
        groups.setdefault(group(one), []).append(one)
    return [
        one
        for alike in groups.values()
        for one in (alike[:1] if are_slices(alike[0]) or _same_tokens(alike, counted) else alike)
    ]


def common_iterations(every: Collection[TokensOfRank]) -> set[int]:
    """Returns the iterations that all have."""
    return set.intersection(*(set(one.iterations) for one in every)) if every else set()


def _same_tokens(group: Sequence[TokensOfRank], counted: Mapping[int, CountedWork]) -> bool:
    first = group[0]
    one = counted.get(first.rank)
    if len(group) > 1 and one is not None and one.routes_own_tokens(first.layer):
        return False
    together = sorted(common_iterations(group))
    return all(np.array_equal(first.at(together), other.at(together)) for other in group[1:])
