"""Finds models that are trained without a visible call: a compiled function runs them, or a bare ``.forward()``.

They are found by their parameters, which an optimizer steps or compiled code is given.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from distprof.model.module_tree import ModuleTree
from distprof.module_walk import parameters_in

_NONE = -1  # the row of no module


class UncalledModels:
    """Maps a parameter to the row of the root that holds it.  Keeps no parameter alive."""

    def __init__(self, tree: ModuleTree, adopt: Callable[[nn.Module, int], int]) -> None:
        self._tree = tree
        self._adopt = adopt
        self._rows: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def row(self, parameters: Sequence[nn.Parameter]) -> int:
        """Returns the row of the root that holds the first of the ``parameters``; -1 if there is none.

        Adopts the root if it is new.  Searches all objects of the process, once for each new parameter.
        """
        if not parameters:
            return _NONE
        if not self._knows(parameters[0]):
            self._search(parameters)
        return self._rows[id(parameters[0])][1]

    def _knows(self, parameter: nn.Parameter) -> bool:
        found = self._rows.get(id(parameter))
        return found is not None and found[0]() is parameter

    def _search(self, parameters: Sequence[nn.Parameter]) -> None:
        for module in self._tree.modules():
            row = self._tree.find(module, _NONE)
            if row is not None and self._tree.rows[row].parent < 0:
                self._remember(parameters_in(module), row)
        if not self._knows(parameters[0]):
            for module in find_uncalled_models(parameters):
                self._remember(parameters_in(module), self._adopt(module, _NONE))
        self._remember((parameter for parameter in parameters if not self._knows(parameter)), _NONE)

    def _remember(self, parameters: Iterator[Tensor], row: int) -> None:
        for parameter in parameters:
            self._rows[id(parameter)] = weakref.ref(parameter), row


def find_uncalled_models(parameters: Collection[nn.Parameter]) -> list[nn.Module]:
    """Returns the modules that hold ``parameters`` and that no module holds.

    Modules with most of the parameters come first; each further one holds some that those before it do not.  Searches
    all objects of the process.
    """
    wanted = {id(parameter) for parameter in parameters}
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module) and "_modules" in vars(thing)]
    held = {id(child) for module in modules for child in module._modules.values()}
    found = [
        (wanted & {*map(id, parameters_in(module))}, module) for module in modules if _is_possible_root(module, held)
    ]
    roots: list[nn.Module] = []
    for holds, module in sorted(found, key=lambda one: len(one[0]), reverse=True):
        if holds & wanted:
            roots.append(module)
            wanted -= holds
    return roots


def _is_possible_root(module: nn.Module, held: set[int]) -> bool:
    """Whether no module holds it, and it is no module that dynamo made to trace a function."""
    return (
        id(module) not in held and not isinstance(module, GraphModule) and not any(map(is_lazy, parameters_in(module)))
    )
