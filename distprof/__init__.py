"""distprof: who is slow, in which module, and which expert is overloaded.

``import distprof`` is cheap and never imports torch: the names below are fetched when they are first used (PEP 562).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from distprof.version import __version__

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from distprof.api import record as record
    from distprof.api import record_experts as record_experts
    from distprof.api import register_formula as register_formula
    from distprof.api import set_topology as set_topology
    from distprof.results.loaded_report import RunReport as RunReport
    from distprof.results.loaded_report import load as load
    from distprof.standalone import FlopsProfiler as FlopsProfiler
    from distprof.standalone import get_model_profile as get_model_profile


def _add_checkout(path: MutableSequence[str]) -> None:
    """Finds ``distprof.launcher`` and ``distprof.merge`` in a checkout, where they lie beside this folder.

    Where distprof is installed, they lie in it; with an editable install its finder knows them.
    """
    root = os.path.dirname(path[0])
    if not os.path.isdir(os.path.join(path[0], "merge")) and os.path.isfile(os.path.join(root, "merge", "analyse.py")):
        path.append(root)


_add_checkout(__path__)

_HOME = {
    **dict.fromkeys(("record", "record_experts", "register_formula", "set_topology"), "distprof.api"),
    **dict.fromkeys(("RunReport", "load"), "distprof.results.loaded_report"),
    **dict.fromkeys(("FlopsProfiler", "get_model_profile"), "distprof.standalone"),
}

__all__ = [
    "FlopsProfiler",
    "RunReport",
    "__version__",
    "get_model_profile",
    "load",
    "record",
    "record_experts",
    "register_formula",
    "set_topology",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'distprof' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
