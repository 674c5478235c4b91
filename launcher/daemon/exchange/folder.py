"""An exchange in files of the run's folder, which the nodes may share."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator

from distprof.launcher.daemon.exchange.protocol import MAX_NODES, MAX_REQUEST_BYTES, MAX_STATUS_BYTES
from distprof.run_folder import NODES, RunFolder
from distprof.safe_files import read_regular
from distprof.safe_folders import FILE_MODE, own_folder

_STATUS = re.compile(r"([0-9a-f]{16})\.status")
_REQUEST = "request"


class FolderExchange:
    """Files in ``nodes/`` of the run folder, each replaced as a whole.  Others may read them, as all of a run."""

    def __init__(self, run: RunFolder, key: str = "") -> None:
        """``key`` is the name of this node in the run folder; a reader has none.

        A node does not see a request that lies there now: it was to an earlier launch of the job in this folder.
        """
        self._run = run
        self._folder = run.path / NODES
        self._key = key
        self._earlier: bytes | None = None
        if key:
            with contextlib.suppress(OSError):
                self._earlier = self.request()

    def publish_status(self, status: bytes) -> None:
        self._replace(f"{self._key}.status", status)

    def statuses(self) -> Iterator[tuple[str, bytes]]:
        names = [name for name in os.listdir(self._folder) if _STATUS.fullmatch(name)]  # noqa: PTH208
        own = f"{self._key}.status"
        for name in sorted(name for name in names if name != own)[:MAX_NODES]:
            with contextlib.suppress(OSError):
                yield name.partition(".")[0], read_regular(self._folder / name, MAX_STATUS_BYTES)

    def publish_request(self, request: bytes) -> None:
        self._replace(_REQUEST, request)

    def request(self) -> bytes | None:
        try:
            found = read_regular(self._folder / _REQUEST, MAX_REQUEST_BYTES)
        except FileNotFoundError:
            return None
        return None if found == self._earlier else found

    def _replace(self, name: str, content: bytes) -> None:
        scratch = f"{name}.{uuid.uuid4().hex}"
        with own_folder(self._run.path, NODES) as folder:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(scratch, flags, FILE_MODE, dir_fd=folder)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(content)
                os.replace(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(scratch, dir_fd=folder)
                raise
