"""Copies the files of a run folder to a URL: at the end of a recording window, and when the job has ended."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from distprof.errors import DistprofError, said
from distprof.launcher.remote.url import file_system
from distprof.run_folder import MANIFEST, REPORT, SHARDS, TRACES, RunFolder

_LOOK_S = 5.0


class UploadFailed(DistprofError):
    """Not all of the run folder is at its URL."""


class Upload:
    """Compares sizes after each file.  A file that has not changed since it was copied is not copied again."""

    def __init__(self, run: RunFolder, url: str, is_recording: Callable[[], bool]) -> None:
        """While a window is recorded nothing is copied.  Raises UsageError without a driver."""
        self._run = run
        self.url = f"{url.rstrip('/')}/{run.path.name}"
        self._files, self._base = file_system(self.url)
        self._is_recording = is_recording
        self._copied: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="distprof upload", daemon=True)

    def start(self) -> None:
        """Copies what each window has recorded, until :meth:`stop`."""
        self._thread.start()

    def stop(self) -> None:
        self._has_ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def sync(self) -> None:
        """Copies what is new.  Raises UploadFailed."""
        for name, state in self._state().items():
            if self._copied.get(name) != state:
                self._copy(name, state)

    def _watch(self) -> None:
        """Copies what has changed once it stops changing; what fails is tried again, and said at the end."""
        while not self._has_ended.wait(_LOOK_S):
            with contextlib.suppress(OSError, UploadFailed):
                state = self._state()
                grows, self._seen = state != self._seen, state
                if not grows and not self._is_recording():
                    self.sync()

    def _copy(self, name: str, state: tuple[int, int]) -> None:
        size, _ = state
        source, target = self._run.path / name, f"{self._base.rstrip('/')}/{name}"
        try:
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(source), target)
            there = self._files.size(target)
        except Exception as error:  # each driver raises its own
            raise UploadFailed(f"{source} cannot be copied to {self.url}: {said(error)}") from None
        if there is not None and there < size:
            raise UploadFailed(f"{self.url}/{name} has {there:,} bytes after the copy, of {size:,}")
        self._copied[name] = state

    def _state(self) -> dict[str, tuple[int, int]]:
        """Returns size and time of the last change of each file that is copied."""
        found = {}
        for path in self._paths():
            with contextlib.suppress(OSError):
                status = path.stat()
                found[path.relative_to(self._run.path).as_posix()] = status.st_size, status.st_mtime_ns
        return found

    def _paths(self) -> Iterator[Path]:
        yield self._run.path / MANIFEST
        for folder in (SHARDS, TRACES, REPORT):
            for above, _, names in os.walk(self._run.path / folder):
                yield from (Path(above) / name for name in sorted(names) if not name.startswith("."))  # half written
