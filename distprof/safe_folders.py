"""Checks that a folder belongs to this user, so that nobody else can place code or records in it.

Whoever may write into a folder may add a file to it, or replace a folder in it.  All checks use descriptors, which
keep pointing to the same folder while it is checked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

#: Modes of new folders and files, before the umask.
FOLDER_MODE = 0o755
FILE_MODE = 0o644
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
_ALL_USERS = ["0", "0", "4294967295"]  # the uid map of a process outside any user namespace


class NotOwn(PermissionError):
    """The folder does not belong to this user alone; the message says why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EPERM, why, str(path))


@contextlib.contextmanager
def own_folder(path: Path, *inside: str) -> Iterator[int]:
    """Yields a descriptor of ``path``, or of the folder ``inside`` it; each folder must be this user's own and no link.

    Raises NotOwn, or OSError if there is no such folder.
    """
    fd = _open(path, None)
    try:
        _check(path, fd)
        for name in inside:
            path /= name
            above, fd = fd, _open(path, fd)
            os.close(above)
            _check(path, fd)
        yield fd
    finally:
        os.close(fd)


def make_own(path: Path, *inside: str, shared: bool) -> None:
    """Makes the folder and those ``inside`` it; ``shared``: another process of the same user may have made them.

    Raises FileExistsError, NotOwn, or another OSError.
    """
    above = os.open(path.parent, _FLAGS & ~os.O_NOFOLLOW)
    try:
        _make(path, above, shared)
    finally:
        os.close(above)
    for name in inside:
        with own_folder(path) as fd:
            _make(path / name, fd, shared)


def is_out_of_reach(path: Path) -> bool:
    """Whether nobody but this user and root can replace the folder ``path``.

    Checks every folder above it and every link on the way.  A folder into which others may write must have the sticky
    bit, as /tmp has.  For a folder that does not exist yet, only the folders above it are checked.
    """
    try:
        return _are_all_trusted(path.absolute(), {0, os.geteuid(), *_overflow_uid()})
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def _are_all_trusted(path: Path, trusted: set[int]) -> bool:
    """Checks each folder from the root down to ``path``.  Raises OSError if one cannot be opened."""
    pending, links = list(reversed(path.parts)), 0
    fd = os.open(pending.pop(), _FLAGS)
    try:
        while pending:
            name, found = pending.pop(), os.fstat(fd)
            if found.st_uid not in trusted or (found.st_mode & _WRITABLE and not found.st_mode & stat.S_ISVTX):
                return False
            entry = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(entry.st_mode):
                links += 1
                if entry.st_uid not in trusted or links > _MOST_LINKS:
                    return False
                target = Path(os.readlink(name, dir_fd=fd)).parts
                pending += reversed(target)
                name = pending.pop() if Path(target[0]).is_absolute() else "."
            above = fd
            fd = os.open(name, _FLAGS, dir_fd=above)
            os.close(above)
    finally:
        os.close(fd)
    return True


def _open(path: Path, above: int | None) -> int:
    try:
        return os.open(path if above is None else path.name, _FLAGS, dir_fd=above)
    except NotADirectoryError:
        if path.is_symlink():
            raise NotOwn(path, "it is a symbolic link") from None
        raise


def _check(path: Path, fd: int) -> None:
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        raise NotOwn(path, f"it belongs to another user (uid {found.st_uid})")
    if found.st_mode & _WRITABLE:
        raise NotOwn(path, f"other users may write into it (mode {stat.S_IMODE(found.st_mode):o})")


def _make(path: Path, above: int, shared: bool) -> None:
    try:
        os.mkdir(path.name, FOLDER_MODE, dir_fd=above)
    except FileExistsError:
        if not shared:
            raise
    fd = _open(path, above)
    try:
        _check(path, fd)
    finally:
        os.close(fd)


def _overflow_uid() -> set[int]:
    """Returns the id that a user namespace shows for all users that it does not map: mostly root of the host."""
    try:
        if Path("/proc/self/uid_map").read_text(encoding="ascii").split() == _ALL_USERS:
            return set()
        return {int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))}
    except (OSError, ValueError):
        return set()
