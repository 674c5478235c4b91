"""Names models by the attribute in which another module keeps them, when the script calls only methods of that module.

An actor-critic, CLIP or an autoencoder is such a module: its parts are models here, named after its attributes.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

from torch import nn
from torch.fx import GraphModule

from distprof.module_walk import children, class_name, wraps_under

#: Searches through all objects of the process, at most, however many models a script makes.
_MAX_SEARCHES = 4
#: Levels of a module that are searched, and modules that are remembered, at most.
_MAX_LEVELS = 3
_MAX_MODULES = 10_000


class HeldNames:
    """Finds the names of models among the attributes of other modules.  Keeps no module alive."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
        self._searches = 0

    def find(self, model: nn.Module) -> str:
        """Returns, for example, ``Agent.actor``; empty if no module holds the model."""
        if self._remembered(model) is None and self._searches < _MAX_SEARCHES:
            self._searches += 1
            self._names = {id(held): (weakref.ref(held), name) for held, name in _named_modules()}
        return self._remembered(model) or ""

    def _remembered(self, model: nn.Module) -> str | None:
        reference, name = self._names.get(id(model), (None, ""))
        return name if reference is not None and reference() is model else None


def _named_modules() -> Iterator[tuple[nn.Module, str]]:
    """Yields the modules in the upper levels of each top module, with their names; a top module's name is empty."""
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module) and "_modules" in vars(thing)]
    held = {id(child) for module in modules for child in module._modules.values()}
    pending = [
        (top, class_name(top), "") for top in modules if id(top) not in held and not isinstance(top, GraphModule)
    ]
    seen: set[int] = set()
    while pending and len(seen) < _MAX_MODULES:
        module, top, path = pending.pop(0)
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module, f"{top}.{path}" if path else ""
        for name, child in children(module) if path.count(".") < _MAX_LEVELS - 1 else ():
            if wraps_under(module, name):
                pending.append((child, top if path else class_name(child), path))
            else:
                pending.append((child, top, f"{path}.{name}" if path else name))
