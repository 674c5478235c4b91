"""Argument names of DeepSpeed's earlier releases: they work, warn, and do not appear in signatures."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from distprof.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


def accepts_deprecated_names(**renamed: str) -> Callable[[Function], Function]:
    """Decorates a function to accept the ``renamed`` arguments (older name -> name) and its own keyword-only arguments,
    which are deprecated without a successor.  Both warn.

    The function raises UsageError if an argument is given under both names.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        gone = {name for name, one in signature.parameters.items() if one.kind is one.KEYWORD_ONLY}

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            _warn(kwargs, renamed, gone)
            for older in renamed.keys() & kwargs.keys():
                if renamed[older] in kwargs:
                    raise UsageError(f"{older} is the older name of {renamed[older]}: give one of them")
                kwargs[renamed[older]] = kwargs.pop(older)
            return function(*args, **kwargs)

        shown = [one for name, one in signature.parameters.items() if name not in gone]
        wrapper.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        return wrapper  # type: ignore[return-value]

    return decorate


def _warn(given: Mapping[str, Any], renamed: Mapping[str, str], gone: set[str]) -> None:
    for name in given:
        if name in renamed or name in gone:
            instead = f": it is called {renamed[name]} now" if name in renamed else ""
            warnings.warn(f"{name} is an older spelling{instead}", DeprecationWarning, stacklevel=3)
