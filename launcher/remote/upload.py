"""Copies the files of a run folder to a URL: at the end of a recording window, and when the job has ended."""

from __future__ import annotations

import contextlib
import shlex
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from distprof.errors import DistprofError, said
from distprof.launcher.remote.checksums import checksum_line, checksum_name, sha256_at, sha256_of
from distprof.launcher.remote.run_files import RunFiles
from distprof.launcher.remote.url import file_system, folder_of_run
from distprof.run_folder import RunFolder

_LOOK_S = 5.0
#: What fails when the job has ended is tried again after these pauses.
_PAUSES_S = (1.0, 3.0)


class UploadFailed(DistprofError):
    """Not all of the run folder is at its URL."""


class Upload:
    """Reads each file back after it was copied, and compares checksums.

    A file that is there already is not copied again, whichever process has copied it: so a copy can be resumed.
    """

    def __init__(
        self,
        run: RunFolder,
        url: str,
        is_recording: Callable[[], bool] = lambda: False,
        paths: Callable[[], Iterator[Path]] | None = None,
    ) -> None:
        """While a window is recorded nothing is copied.  ``paths`` yields the files to copy, by default all.

        Raises UsageError without a driver.
        """
        self._run = run
        self._paths = paths or RunFiles(run).all
        self.url = f"{url.rstrip('/')}/{run.path.name}"
        self._files, self._base = file_system(self.url)
        self._is_placed = False
        #: The command that goes on with this copy.
        self.command = shlex.join(("distprof", "upload", str(run.path), url))
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

    def sync(self) -> int:
        """Copies what is not there yet; what fails is tried again.  Returns how many files are there.

        Raises UploadFailed.
        """
        for pause_s in _PAUSES_S:
            with contextlib.suppress(UploadFailed):
                return self._copy_new()
            time.sleep(pause_s)
        return self._copy_new()

    def _watch(self) -> None:
        """Copies what has changed once it stops changing; what fails is tried again, and said at the end."""
        while not self._has_ended.wait(_LOOK_S):
            with contextlib.suppress(OSError, UploadFailed):
                state = self._state()
                grows, self._seen = state != self._seen, state
                if not grows and not self._is_recording():
                    self._copy_new()

    def _copy_new(self) -> int:
        """Copies what is new, each file with its checksum.  Raises UploadFailed."""
        for name, state in self._state().items():
            if self._copied.get(name) != state:
                self._place()
                self._copy(name, state)
        return len(self._copied)

    def _place(self) -> None:
        """Chooses the folder at the URL, once: that of another run is left alone.  Raises UploadFailed."""
        if self._is_placed:
            return
        try:
            manifest = self._run.read_manifest()
            self.url = folder_of_run(self.url, manifest.run_id if manifest is not None else "")
            self._files, self._base = file_system(self.url)
        except Exception as error:  # each driver raises its own
            raise UploadFailed(f"{self.url} cannot be read: {said(error)}") from None
        self._is_placed = True

    def _copy(self, name: str, state: tuple[int, int]) -> None:
        """Copies a file if it is not there, and writes its checksum after it.  Raises UploadFailed."""
        source, target, noted = self._run.path / name, f"{self._base}/{name}", f"{self._base}/{checksum_name(name)}"
        try:
            checksum = sha256_of(source)
            is_there = self._is_there(target, state[0], checksum)
            if not is_there:
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(source), target)
                is_there = self._is_there(target, state[0], checksum)
            if is_there:
                self._files.makedirs(noted.rpartition("/")[0], exist_ok=True)
                self._files.pipe_file(noted, checksum_line(name, checksum))
        except Exception as error:  # each driver raises its own
            raise UploadFailed(f"{source} cannot be copied to {self.url}: {said(error)}") from None
        if _state_of(source) != state:
            raise UploadFailed(f"{source} has changed while it was copied to {self.url}")
        if not is_there:
            raise UploadFailed(f"{self.url}/{name} cannot be read back with the bytes of {source}")
        self._copied[name] = state

    def _is_there(self, target: str, size: int, checksum: str) -> bool:
        """Whether these bytes are at the URL.  Raises what the driver raises."""
        try:
            there = self._files.size(target)
            return there in (None, size) and sha256_at(self._files, target) == checksum
        except (FileNotFoundError, PermissionError):  # S3 forbids to see a missing file to those who may not list
            return False

    def _state(self) -> dict[str, tuple[int, int]]:
        """Returns size and time of the last change of each file that is copied."""
        found = {}
        for path in self._paths():
            state = _state_of(path)
            if state is not None:
                found[path.relative_to(self._run.path).as_posix()] = state
        return found


def _state_of(path: Path) -> tuple[int, int] | None:
    """Returns size and time of the last change of a file; None for a link, and for what is no file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
