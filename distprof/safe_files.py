"""Reads files of unknown origin: only regular files, up to a bound, and without waiting."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotRegular(OSError):
    """The path is a pipe, a device or a folder, where a file is expected."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file", str(path))


class TooLarge(OSError):
    """The file is larger than any that distprof writes or reads."""

    def __init__(self, path: Path, size: int, most: int) -> None:
        super().__init__(errno.EFBIG, f"it has {size:,} bytes, and no such file has more than {most:,}", str(path))


def read_regular(path: Path, most: int) -> bytes:
    """Returns the whole file at its present length.  Raises OSError: NotRegular or TooLarge before any allocation."""
    return _read(path, None, most)


def read_beginning(path: Path, size: int) -> bytes:
    """Returns the first ``size`` bytes, however long the file is.  Raises OSError."""
    return _read(path, size, size)


def _read(path: Path, size: int | None, most: int) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe or a device may already have an effect
        raise NotRegular(path)
    # O_NONBLOCK: the path may have become a pipe since the check; opening it must not wait.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(path)
        if size is None and status.st_size > most:
            raise TooLarge(path, status.st_size, most)
        return file.read(status.st_size if size is None else size)
