"""Descriptions of a model that is too large for one record, in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from distprof.records import ModuleRow, Parameter, Parameters, Tree
from distprof.shard.frames import MAX_BODY_BYTES

#: Of a piece, by what it takes at most: well below what a record may.
_PIECE_BYTES = MAX_BODY_BYTES // 4
_BYTES_A_CHARACTER = 4  # of UTF-8, at most
_ROW_BYTES = 512  # of a row or a parameter, names apart

Item = TypeVar("Item", ModuleRow, Parameter)


def tree_records(tree: Tree) -> Iterator[Tree]:
    """The tree's rows."""
    for first, rows in _pieces(tree.rows, lambda row: (row.name, row.class_name, row.extra_repr)):
        yield Tree(tree.first_row + first, rows)


def parameter_records(root: int, parameters: Sequence[Parameter], held_as: str = "") -> Iterator[Parameters]:
    """All parameters of a root."""
    pieces = [*_pieces(parameters, lambda one: (one.name, one.tied_to, one.shared_as))]
    if len(pieces) < 2:
        yield Parameters(root, tuple(parameters), held_as)
        return
    for first, some in pieces:
        yield Parameters(root, some, held_as, first, len(parameters))


def _pieces(items: Sequence[Item], texts: Callable[[Item], tuple[str, ...]]) -> Iterator[tuple[int, tuple[Item, ...]]]:
    """(number of its first, items) of each piece."""
    first, size = 0, 0
    for number, item in enumerate(items):
        own = _ROW_BYTES + _BYTES_A_CHARACTER * sum(map(len, texts(item)))
        if size + own > _PIECE_BYTES and number > first:
            yield first, tuple(items[first:number])
            first, size = number, 0
        size += own
    if len(items) > first:
        yield first, tuple(items[first:])
