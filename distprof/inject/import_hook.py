"""Finders on ``sys.meta_path``: one waits for torch, one separates distprof's imports from the script's.

This module is loaded at the start of every process, so it imports almost nothing.
"""

from __future__ import annotations

import os
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
    """Leaves ``import torch`` unchanged, and calls ``then`` when it has succeeded.

    It stays until then: libraries ask for torch's spec long before they import it, and an import may fail and be tried
    again.
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
            spec.loader = _NotifyingLoader(spec.loader, self)  # type: ignore[assignment]
        return spec

    def torch_is_imported(self) -> None:
        """``import torch`` has succeeded."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._then()

    def _spec_of_others(self, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """Returns the spec that the import would find without this hook."""
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find("torch", path, target) if find is not None else None
            if spec is not None:
                return spec
        return None


class _NotifyingLoader:
    """torch's own loader, which calls the hook after the import."""

    def __init__(self, loader: Loader, hook: TorchImportHook) -> None:
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        """Passes on other attributes: code that asks for torch's spec may also use its loader."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Before torch runs, so that code which looks at torch's spec or loader sees torch's own.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._hook.torch_is_imported()


@contextmanager
def separate_imports(path: Sequence[str]) -> Iterator[None]:
    """Imports of this thread in this block search ``path`` first, not the script's folder.

    A script may have its own ``msgpack.py``: distprof does not run it, and the script finds it afterwards.
    """
    finder, before = _SeparateFinder(path), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _remove_hiding_modules(path, set(sys.modules) - before)


class _SeparateFinder:
    def __init__(self, path: Sequence[str]) -> None:
        self._path = list(path)
        self._thread = get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top_level = path is None and get_ident() == self._thread
        return PathFinder.find_spec(fullname, self._path, target) if top_level else None


def _remove_hiding_modules(path: Sequence[str], ours: set[str]) -> None:
    """Removes distprof's imports from ``sys.modules`` if the script has modules of the same names."""
    scripts = [entry for entry in sys.path if entry not in path]
    for top in {name.partition(".")[0] for name in ours}:
        if _has_module(scripts, top):
            for name in ours:
                if name.partition(".")[0] == top:
                    del sys.modules[name]


def _has_module(folders: Sequence[str], name: str) -> bool:
    """Whether an import would take ``name`` from these folders.

    A folder without ``__init__.py``, such as a clone of distprof beside the script, yields to an installed package.  A
    copy of distprof, such as a checkout with the script in it, is not taken: parts of both would run.
    """
    spec = PathFinder.find_spec(name, folders)
    if spec is None or spec.loader is None:
        return False
    places = spec.submodule_search_locations or ()
    return not any(os.path.exists(os.path.join(place, "inject", "import_hook.py")) for place in places)  # noqa: PTH110, PTH118
