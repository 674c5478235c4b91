"""Finders on ``sys.meta_path``: one that waits for torch, one that keeps our imports and the script's apart.

Loaded at the start of every process: imports next to nothing itself.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader


class TorchImportHook:
    """Lets ``import torch`` run as ever, and calls ``then`` when it is through.

    Stays until then: others ask whether there is a torch long before they import it, and an import may fail and be
    tried again.
    """

    def __init__(self, then: Callable[[], object]) -> None:
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        spec = self._spec_of_others(path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _TellingLoader(spec.loader, self)  # type: ignore[assignment]
        return spec

    def torch_is_through(self) -> None:
        """``import torch`` has succeeded."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._then()

    def _spec_of_others(self, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """What the import would have found without us."""
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find("torch", path, target) if find is not None else None
            if spec is not None:
                return spec
        return None


class _TellingLoader:
    """torch's own loader; the watch is told afterwards."""

    def __init__(self, loader: Loader, watch: TorchImportHook) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        """Whoever asks for torch's spec without importing it may ask its loader, too."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Before it runs: what looks at torch's spec or loader sees torch's own, as if we had never been there.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._watch.torch_is_through()


@contextmanager
def apart(path: Sequence[str]) -> Iterator[None]:
    """What this thread imports in here is looked for on ``path`` first, not beside the script.

    A script may have a ``msgpack.py`` of its own: we do not run it, and the script shall find it afterwards.
    """
    finder, before = _Apart(path), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _make_way(path, set(sys.modules) - before)


class _Apart:
    def __init__(self, path: Sequence[str]) -> None:
        self._path = list(path)
        self._thread = get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top_level = path is None and get_ident() == self._thread
        return PathFinder.find_spec(fullname, self._path, target) if top_level else None


def _make_way(path: Sequence[str], ours: set[str]) -> None:
    """Forget those of our modules whose names the script has modules for; we keep what we imported from them."""
    scripts = [entry for entry in sys.path if entry not in path]
    for top in {name.partition(".")[0] for name in ours}:
        if PathFinder.find_spec(top, scripts) is not None:
            for name in ours:
                if name.partition(".")[0] == top:
                    del sys.modules[name]
