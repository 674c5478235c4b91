"""Splits descriptions of a model that is too large for one record into several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from distprof.records import ModuleRow, Parameter, Parameters, Tree
from distprof.shard.frames import MAX_BODY_BYTES

#: The upper bound of a chunk's size, well below that of a record.
_CHUNK_BYTES = MAX_BODY_BYTES // 4
_BYTES_A_CHARACTER = 4  # at most, in UTF-8
_ROW_BYTES = 512  # of a row or a parameter, without its names

Item = TypeVar("Item", ModuleRow, Parameter)


def tree_records(tree: Tree) -> Iterator[Tree]:
    """Yields the tree's rows in as many records as needed."""
    for first, rows in _chunks(tree.rows, lambda row: (row.name, row.class_name, row.extra_repr)):
        yield Tree(tree.first_row + first, rows)


def parameter_records(
    root: int,
    parameters: Sequence[Parameter],
    held_as: str = "",
    *,
    evaluated: bool = False,
    tied_roots: tuple[int, ...] = (),
) -> Iterator[Parameters]:
    """Yields all parameters of a root in as many records as needed."""
    whole = Parameters(root, tuple(parameters), held_as, evaluated=evaluated, tied_roots=tied_roots)
    chunks = [*_chunks(parameters, lambda one: (one.name, one.tied_to, one.shared_as))]
    if len(chunks) < 2:
        yield whole
        return
    for first, some in chunks:
        yield replace(whole, parameters=some, first=first, total=len(parameters))


def _chunks(items: Sequence[Item], texts: Callable[[Item], tuple[str, ...]]) -> Iterator[tuple[int, tuple[Item, ...]]]:
    """Yields (index of its first item, items) of each chunk."""
    first, size = 0, 0
    for number, item in enumerate(items):
        own = _ROW_BYTES + _BYTES_A_CHARACTER * sum(map(len, texts(item)))
        if size + own > _CHUNK_BYTES and number > first:
            yield first, tuple(items[first:number])
            first, size = number, 0
        size += own
    if len(items) > first:
        yield first, tuple(items[first:])
