"""Files that may be from elsewhere: regular ones are read, up to a bound, and none is waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotRegular(OSError):
    """A pipe, a device, a folder: nothing to be opened where a file is expected."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "it is no regular file", str(path))


class TooLarge(OSError):
    """More than anything that we write, or would read."""

    def __init__(self, path: Path, size: int, most: int) -> None:
        super().__init__(errno.EFBIG, f"it has {size:,} bytes, and no such file has more than {most:,}", str(path))


def read_regular(path: Path, most: int) -> bytes:
    """All of it, as long as it is now.  Raises OSError: NotRegular and TooLarge before anything is allocated."""
    return _read(path, None, most)


def read_beginning(path: Path, size: int) -> bytes:
    """Its first ``size`` bytes, however long it is.  Raises OSError."""
    return _read(path, size, size)


def _read(path: Path, size: int | None, most: int) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe or a device may do something already
        raise NotRegular(path)
    # O_NONBLOCK: what has become a pipe meanwhile is not waited for.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(path)
        if size is None and status.st_size > most:
            raise TooLarge(path, status.st_size, most)
        return file.read(status.st_size if size is None else size)
