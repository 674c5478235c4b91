"""Copies a run from a URL into a run folder here, which all commands read.

Names at a URL come from elsewhere: only those of files that a merge reads are taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from distprof.errors import DataError, DistprofError, said
from distprof.heartbeat.hang_file import FOLDER as HANGS
from distprof.launcher.remote.checksums import checksum_in, checksum_name, sha256_of
from distprof.launcher.remote.run_files import is_read_by_merges
from distprof.launcher.remote.url import file_system
from distprof.run_folder import SHARDS, TRACES, RunFolder, create, safe_name, write_own
from distprof.safe_files import read_regular
from distprof.safe_folders import make_own

#: In a run folder that was made here: which URL it is of.  A URL may hold a password.
_SOURCE = "copied-from"
_MOST_RUNS = 10_000
_MOST_BYTES = 100
#: Files that are copied at a time.
_TOGETHER = 32

#: (files copied, files in all)
Progress = Callable[[int, int], None]


def download(url: str, out: Path, progress: Progress) -> Path:
    """Returns the run folder in ``out`` that is a copy of the run at ``url``.

    What an earlier call has copied is not copied again, unless it has changed at the URL.  Raises DataError where there
    is no run or a file cannot be copied, and UsageError without a driver or without a folder here.
    """
    files, base = file_system(url.rstrip("/"))
    try:
        files.invalidate_cache()
        names = _names(files, base)
        if not any(name.endswith(".msgpack") for name in names):
            raise DataError(f"{url} is no run: it has no shards ({SHARDS}/rank*.msgpack)")
        sums = _checksums(files, base, names)
        run = _folder(url, out)
        missing = [name for name in names if not _is_here(run.path / name, sums.get(name))]
        for start in range(0, len(missing), _TOGETHER):
            _copy(files, base, missing[start : start + _TOGETHER], run, sums)
            progress(min(start + _TOGETHER, len(missing)), len(missing))
    except DistprofError:
        raise
    except Exception as error:  # each driver raises its own
        raise DataError(f"{url} cannot be copied: {said(error)}") from None
    return run.path


def _names(files: Any, base: str) -> list[str]:
    """Returns the names, below the run, of what is copied.  Raises what the driver raises."""
    try:
        found = [str(path) for path in files.ls(base, detail=False)]
    except FileNotFoundError:
        return []
    for folder in (SHARDS, HANGS, TRACES):
        if any(path.rstrip("/").endswith(f"/{folder}") for path in found):
            found += map(str, files.find(f"{base}/{folder}"))
    above = base.strip("/") + "/"
    names = {path.strip("/").removeprefix(above) for path in found}
    return sorted(name for name in names if is_read_by_merges(name))


def _checksums(files: Any, base: str, names: list[str]) -> dict[str, str]:
    """Returns the checksums that are at the URL: a user may have copied the files by other means."""
    paths = {f"{base}/{checksum_name(name)}": name for name in names}
    found = files.cat(list(paths), on_error="omit")
    below = {path.strip("/"): name for path, name in paths.items()}
    return {below[path.strip("/")]: checksum_in(content) for path, content in found.items()}


def _folder(url: str, out: Path) -> RunFolder:
    """Returns the folder of an earlier copy from this URL, else a new one.  Raises OSError, and UsageError."""
    name, mark = safe_name(url.rstrip("/").rpartition("/")[2]), blake2b(url.rstrip("/").encode()).hexdigest()[:32]
    for number in range(1, _MOST_RUNS):
        path = out / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            break
        with contextlib.suppress(OSError):
            if read_regular(path / _SOURCE, _MOST_BYTES) == mark.encode():
                return RunFolder(path)
    run = create(out, name, shared=False)
    write_own(run.path, _SOURCE, mark)
    return run


def _is_here(path: Path, checksum: str | None) -> bool:
    """Whether the file is here as it is at the URL; without its checksum nobody knows."""
    return bool(checksum) and path.is_file() and sha256_of(path) == checksum


def _copy(files: Any, base: str, names: list[str], run: RunFolder, sums: Mapping[str, str]) -> None:
    """Raises DataError for bytes that differ from their checksum, OSError, and what the driver raises."""
    scratches = {name: _scratch(run.path, name) for name in names}
    files.get([f"{base}/{name}" for name in names], [str(path) for path in scratches.values()])
    for name, path in scratches.items():
        if sums.get(name) and sha256_of(path) != sums[name]:
            raise DataError(
                f"{base}/{name} has other bytes than its checksum says: if the job is copying it now, try again"
            )
        path.replace(run.path / name)


def _scratch(run: Path, name: str) -> Path:
    """Returns where a file is until it is whole, in folders that are made for it.  Raises OSError."""
    folder = run
    for part in Path(name).parent.parts:
        folder /= part
        make_own(folder, shared=True)
    return folder / f".{Path(name).name}.part"
