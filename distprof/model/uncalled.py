"""Models that are trained, and nobody is seen to call them: a compiled function runs them, or a bare ``.forward()``.

They are found by their parameters, which an optimizer steps and compiled code is given.
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
    """By parameter, the row of the root that holds it; keeps none of them alive."""

    def __init__(self, tree: ModuleTree, adopt: Callable[[nn.Module, int], int]) -> None:
        self._tree = tree
        self._adopt = adopt
        self._rows: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def row(self, parameters: Sequence[nn.Parameter]) -> int:
        """Of the root that holds the first of them, which is adopted where it was not known; -1 if there is none.

        Looks through all objects of the process, once for a parameter that it meets for the first time.
        """
        if not parameters:
            return _NONE
        if not self._knows(parameters[0]):
            self._look_for(parameters)
        return self._rows[id(parameters[0])][1]

    def _knows(self, parameter: nn.Parameter) -> bool:
        met = self._rows.get(id(parameter))
        return met is not None and met[0]() is parameter

    def _look_for(self, parameters: Sequence[nn.Parameter]) -> None:
        for module in self._tree.modules():
            row = self._tree.find(module, _NONE)
            if row is not None and self._tree.rows[row].parent < 0:
                self._note(parameters_in(module), row)
        if not self._knows(parameters[0]):
            for module in find_uncalled_models(parameters):
                self._note(parameters_in(module), self._adopt(module, _NONE))
        self._note((parameter for parameter in parameters if not self._knows(parameter)), _NONE)

    def _note(self, parameters: Iterator[Tensor], row: int) -> None:
        for parameter in parameters:
            self._rows[id(parameter)] = weakref.ref(parameter), row


def find_uncalled_models(parameters: Collection[nn.Parameter]) -> list[nn.Module]:
    """The modules that hold ``parameters`` and are held by none: those that hold most come first, and others only where
    they hold more.  Looks through all objects of the process.
    """
    wanted = {id(parameter) for parameter in parameters}
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module) and "_modules" in vars(thing)]
    held = {id(child) for module in modules for child in module._modules.values()}
    found = [(wanted & {*map(id, parameters_in(module))}, module) for module in modules if _may_lead(module, held)]
    leaders: list[nn.Module] = []
    for holds, module in sorted(found, key=lambda one: len(one[0]), reverse=True):
        if holds & wanted:
            leaders.append(module)
            wanted -= holds
    return leaders


def _may_lead(module: nn.Module, held: set[int]) -> bool:
    """Whether no module holds it; what dynamo made to trace a function is no model."""
    return (
        id(module) not in held and not isinstance(module, GraphModule) and not any(map(is_lazy, parameters_in(module)))
    )
