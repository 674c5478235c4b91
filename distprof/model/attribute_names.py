"""What models are called that are called one by one: attributes of a module of which the script calls methods only.

An actor-critic, CLIP or an autoencoder is such a module: its parts are models here, and their names are its own.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

from torch import nn
from torch.fx import GraphModule

from distprof.module_walk import children, class_name, wraps_under

#: How often all objects of the process are looked through, whatever a script makes anew.
_LOOKS = 4
#: How deep in a module its parts are looked for, and how many of all are kept.
_DEEP = 3
_MOST = 10_000


class HeldNames:
    """Keeps no module alive."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
        self._looks = 0

    def of(self, model: nn.Module) -> str:
        """``Agent.actor``; empty for one that no module holds."""
        if self._known(model) is None and self._looks < _LOOKS:
            self._looks += 1
            self._names = {id(held): (weakref.ref(held), name) for held, name in _every_name()}
        return self._known(model) or ""

    def _known(self, model: nn.Module) -> str | None:
        reference, name = self._names.get(id(model), (None, ""))
        return name if reference is not None and reference() is model else None


def _every_name() -> Iterator[tuple[nn.Module, str]]:
    """Modules that stand near the top of one that no module holds, and their names, which such a one has not."""
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module) and "_modules" in vars(thing)]
    held = {id(child) for module in modules for child in module._modules.values()}
    ahead = [(top, class_name(top), "") for top in modules if id(top) not in held and not isinstance(top, GraphModule)]
    seen: set[int] = set()
    while ahead and len(seen) < _MOST:
        module, top, path = ahead.pop(0)
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module, f"{top}.{path}" if path else ""
        for name, child in children(module) if path.count(".") < _DEEP - 1 else ():
            if wraps_under(module, name):
                ahead.append((child, top if path else class_name(child), path))
            else:
                ahead.append((child, top, f"{path}.{name}" if path else name))
