"""The ``--out`` that is a URL: where the run folder is made then, and whether there is a driver for it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from distprof.errors import UsageError, said

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::.*)?://.*", re.DOTALL)


def is_url(out: str) -> bool:
    return _URL.fullmatch(out) is not None


def file_system(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system of a URL, and the path in it.  Raises UsageError without a driver."""
    try:
        core: Any = import_module("fsspec.core")
    except ImportError:
        raise UsageError(f"--out {url} needs fsspec: pip install 'distprof[remote]'") from None
    try:
        found, path = core.url_to_fs(url)
    except Exception as error:  # each driver raises its own
        raise UsageError(f"--out {url} cannot be used: {said(error)}") from None
    return found, str(path)


def local_folder(out: str, default: str) -> Path:
    """Returns the folder in which run folders are made: ``default``, if ``out`` is a URL to which they are copied."""
    return Path(default if is_url(out) else out)
