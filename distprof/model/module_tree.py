"""The module tree of the models that run: its rows, their names, and the row that a call belongs to.

Keeps no module alive: rows are found by ``id``, and an id is removed when its module is freed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.nn.parameter import is_lazy

from distprof.external_exceptions import pass_on
from distprof.frameworks.registry import FrameworkRegistry
from distprof.model.batch_order import BatchOrder
from distprof.model.owned_parameters import OwnedParameters
from distprof.module_walk import children, class_name, is_wrapper, modules_of, wraps_under
from distprof.records import MAX_DEPTH, ModuleRow, Tree

#: A bound for scripts that make new modules in every forward: they must not fill memory or disk.
MAX_ROWS = 50_000
_MAX_TEXT = 1_000  # characters kept of a name, of a class or of an extra_repr

#: Each parameter's identity once, with its number of elements on this rank.
_Numels = set[tuple[tuple[int, str], int]]

#: For a module and each below it: the name below it, the class, and the elements of its own parameters.
_Build = tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class _Unowned:
    """A module that was called by a row that does not own it."""

    row: int
    build: _Build
    reference: weakref.ref[nn.Module]


class ModuleTree:
    """Rows of all models seen so far; rows are only appended."""

    def __init__(self, stacks: FrameworkRegistry) -> None:
        self.rows: list[ModuleRow] = []
        self._stacks = stacks
        self.row_of: dict[int, int] = {}  # id of a module -> its row, for modules with one name
        self.changes = [0]  # how often ``row_of`` has changed: the one number in this list is replaced
        self._rows_of: dict[int, list[int]] = {}  # id -> all its rows, for modules with several names
        self._references: dict[int, weakref.ref[nn.Module]] = {}
        self._unowned: dict[tuple[int, str], list[_Unowned]] = {}  # by row of the caller and class
        self.batch_order = BatchOrder()
        self._roots = 0
        self._written = 0

    def adopt(self, module: nn.Module, parent: int = -1) -> int:
        """Makes rows for a new module and all below it, and returns its row; -1 if the tree is full.

        The module is a root, or was called by row ``parent``, which does not own it.  It gets the rows of a freed
        module of the same structure that the same row had called: a script may make a new loss in every forward.
        """
        unowned = self._unowned.setdefault((parent, class_name(module)), [])
        build = _build(module)
        gone = next((one for one in unowned if one.reference() is None and one.build == build), None)
        if gone is not None:
            for row, below in zip(range(gone.row, len(self.rows)), modules_of(module), strict=False):
                self._remember(below, row)
            first = gone.row
            unowned.remove(gone)
        else:
            first = self._add(module, parent)
        if first >= 0:
            unowned.append(_Unowned(first, build, weakref.ref(module)))
        return first

    def _add(self, module: nn.Module, parent: int) -> int:
        if len(self.rows) >= MAX_ROWS:
            return -1
        if parent < 0:
            root, name, depth = self._roots, "", 0
            self._roots += 1
        else:
            caller = self.rows[parent]
            root, name, depth = caller.root, _joined(caller.name, f"<{class_name(module)}>"), caller.depth + 1
            if depth > MAX_DEPTH:
                parent, depth = caller.parent, caller.depth
        first = len(self.rows)
        self._append(module, name, root, parent, depth, frozenset(), OwnedParameters(module))
        if parent < 0:
            self.batch_order.add_model(first, module)
        return first

    def find(self, module: nn.Module, caller: int) -> int | None:
        """Returns the row of ``module`` when row ``caller`` (-1: none) calls it; None if it has no row.

        For a module with several names, prefers the row below its caller.
        """
        rows = self._rows_of.get(id(module))
        if rows is None:
            return self.row_of.get(id(module))
        return next((row for row in rows if self._is_below(row, caller)), rows[0])

    def label(self, row: int) -> str:
        """Returns the name of a row's module, of a root the name of its class."""
        return self.rows[row].name or self.rows[row].class_name

    def modules(self) -> Iterator[nn.Module]:
        """Yields all modules that have a row and are still alive."""
        for reference in list(self._references.values()):
            module = reference()
            if module is not None:
                yield module

    def take_new_rows(self) -> Tree | None:
        """Returns a record of the rows that were in no record yet; None if there are none."""
        if self._written == len(self.rows):
            return None
        first, self._written = self._written, len(self.rows)
        return Tree(first_row=first, rows=tuple(self.rows[first:]))

    def _is_below(self, row: int, ancestor: int) -> bool:
        while row >= 0:
            row = self.rows[row].parent
            if row == ancestor:
                return True
        return ancestor < 0

    def _append(
        self,
        module: nn.Module,
        name: str,
        root: int,
        parent: int,
        depth: int,
        ancestors: frozenset[int],
        owners: OwnedParameters,
    ) -> _Numels:
        """Appends rows for ``module`` and all below it; returns the parameters in the subtree."""
        own = {(p.identity, p.layout(self._stacks, p.name).rank_numel) for p in owners.owned_by(module)}
        row = len(self.rows)
        self.rows.append(_row(module, name, root, parent, depth))
        self._remember(module, row)
        all_parameters = set(own)
        # A reader accepts MAX_DEPTH levels: deeper modules become siblings of their parent.
        upper, lower = (row, depth + 1) if depth < MAX_DEPTH else (parent, depth)
        ancestors |= {id(module)}
        for child_name, child in children(module):
            if id(child) not in ancestors and len(self.rows) < MAX_ROWS:
                own_name = self._stacks.child_name(module, child_name, child)
                full_name = _child_path(name, module, own_name)
                all_parameters |= self._append(child, full_name, root, upper, lower, ancestors, owners)
        self.rows[row] = _with_parameter_counts(self.rows[row], own, all_parameters)
        return all_parameters

    def _remember(self, module: nn.Module, row: int) -> None:
        key = id(module)
        if row in self._rows_of.get(key, ()) or self.row_of.get(key) == row:
            return
        self.changes[0] += 1
        if key in self._rows_of:
            self._rows_of[key].append(row)
        elif key in self.row_of and self.rows[self.row_of[key]].root == self.rows[row].root:
            self._rows_of[key] = [self.row_of.pop(key), row]
        else:  # new, or first a root of its own or part of one: the row in the larger model, adopted later, says more
            self.row_of[key] = row
        if key not in self._references:
            self._references[key] = weakref.ref(module, lambda _: self._forget(key))

    def _forget(self, key: int) -> None:
        self.changes[0] += 1
        for table in (self.row_of, self._rows_of, self._references):
            table.pop(key, None)


def rows_inside(row: int, rows: Sequence[ModuleRow]) -> range:
    """Returns the rows below ``row``: a tree has them in the order of a walk."""
    end = row + 1
    while end < len(rows) and rows[end].depth > rows[row].depth:
        end += 1
    return range(row + 1, end)


def _build(module: nn.Module) -> _Build:
    return tuple(_structure(module, "", frozenset()))


def _structure(module: nn.Module, name: str, ancestors: frozenset[int]) -> Iterator[tuple[str, str, int]]:
    yield name, class_name(module), sum(_numel(p) for p in module._parameters.values() if p is not None)
    below = ancestors | {id(module)}
    for child_name, child in children(module):
        if id(child) not in below:
            yield from _structure(child, _joined(name, child_name), below)


def _numel(parameter: nn.Parameter) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()


def _child_path(name: str, module: nn.Module, child: str) -> str:
    return name if wraps_under(module, child) else _joined(name, child)


def _joined(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child


def _row(module: nn.Module, name: str, root: int, parent: int, depth: int) -> ModuleRow:
    return ModuleRow(
        name=name[:_MAX_TEXT],
        class_name=class_name(module)[:_MAX_TEXT],
        root=root,
        parent=parent,
        depth=depth,
        extra_repr=_extra_repr(module),
        wrapper=is_wrapper(module),
    )


def _extra_repr(module: nn.Module) -> str:
    try:
        return str(module.extra_repr())[:_MAX_TEXT]
    except Exception as error:  # a user's method, called in a state that its author may not expect
        pass_on(error)
        return ""


def _with_parameter_counts(row: ModuleRow, own: _Numels, below: _Numels) -> ModuleRow:
    return replace(row, own_params=sum(n for _, n in own), total_params=sum(n for _, n in below))
