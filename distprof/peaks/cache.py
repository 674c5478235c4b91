"""Peaks that ``distprof peak`` has measured, kept for this user's later merges.

``$XDG_CACHE_HOME/distprof/peaks.json`` (``~/.cache``, if that is not set) names devices by their model, not hosts: it
may be copied to wherever runs are merged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distprof.errors import UsageError
from distprof.peaks.table import Engine, possible
from distprof.run_folder import write_whole
from distprof.safe_files import read_regular

_MAX_BYTES = 1 << 24


def cache_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where this user's figures are kept."""
    folder = environment.get("XDG_CACHE_HOME", "")
    base = Path(folder) if Path(folder).is_absolute() else Path(environment.get("HOME", "/")) / ".cache"
    return base / "distprof" / "peaks.json"


def read_peak_cache(path: Path) -> tuple[dict[Engine, float], str]:
    """(TFLOPS by engine, what is wrong with the file: empty if nothing is).  No file is no figures."""
    try:
        entries = json.loads(read_regular(path, _MAX_BYTES))["peaks"]
        return dict(map(_figure, entries)), ""
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        return {}, f"{path} holds no measured peaks ({type(error).__name__}: {error}): remove it, and measure again"


def write_peak_cache(path: Path, figures: Mapping[Engine, float]) -> None:
    """Add ``figures`` to the file; later ones of an engine replace earlier ones.

    Raises UsageError when the file cannot be written, or holds something else.
    """
    earlier, problem = read_peak_cache(path)
    if problem:
        raise UsageError(problem)
    entries = [{**engine._asdict(), "tflops": tflops} for engine, tflops in sorted({**earlier, **figures}.items())]
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in entries)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f'{{"peaks": [\n{lines}\n]}}\n')
    except OSError as error:
        raise UsageError(f"cannot keep peaks in {path}: {error.strerror} (choose a folder by XDG_CACHE_HOME)") from None


def _figure(entry: Any) -> tuple[Engine, float]:
    engine, tflops = Engine(entry["device"], entry["threads"], entry["arithmetic"]), float(entry["tflops"])
    if [type(part) for part in engine] != [str, int, str] or not possible(tflops):
        raise TypeError(f"{entry} is no figure")
    return engine, tflops
