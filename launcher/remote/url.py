"""URLs in place of folders: whether there is a driver for one, which run is at it, and where run folders are made."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from distprof.errors import UsageError, said
from distprof.run_folder import MANIFEST

_MOST_RUNS = 10_000
_MOST_BYTES = 1 << 24  # of a manifest
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::.*)?://.*", re.DOTALL)


def is_url(out: str) -> bool:
    return _URL.fullmatch(out) is not None


def file_system(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system of a URL, and the path in it.  Raises UsageError without a driver."""
    try:
        core: Any = import_module("fsspec.core")
    except ImportError:
        raise UsageError(f"{url} needs fsspec: pip install 'distprof[remote]'") from None
    try:
        found, path = core.url_to_fs(url)
    except Exception as error:  # each driver raises its own
        raise UsageError(f"{url} cannot be used: {said(error)}") from None
    return found, str(path)


def local_folder(out: str, default: str) -> Path:
    """Returns the folder in which run folders are made: ``default``, if ``out`` is a URL to which they are copied."""
    return Path(default if is_url(out) else out)


def folder_of_run(url: str, run_id: str) -> str:
    """Returns ``url``, or ``url-2`` and so on where that is the folder of another run.

    Raises OSError, and what the driver raises.
    """
    for number in range(1, _MOST_RUNS):
        folder = url if number == 1 else f"{url}-{number}"
        if run_at(folder) in ("", run_id):
            return folder
    raise FileExistsError(f"it holds {_MOST_RUNS} runs of this name")


def run_at(url: str) -> str:
    """Returns the id of the run whose manifest is in the folder at ``url``; empty without a whole one.

    Raises what the driver raises.
    """
    files, base = file_system(url)
    try:
        with files.open(f"{base.rstrip('/')}/{MANIFEST}", "rb") as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (FileNotFoundError, PermissionError, ValueError, RecursionError):  # S3 forbids to see a missing file
        return ""
    return str(found.get("run_id", "")) if isinstance(found, dict) else ""
