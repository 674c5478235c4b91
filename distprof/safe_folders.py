"""Folders that are this user's own, so that what lies in them is nobody else's: neither code nor records.

Whoever may write into a folder may put a file of theirs into it, and another folder in the place of one in it.  All is
asked of descriptors, which stay what they are while it is asked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

#: For what is made here, whatever the umask leaves of it.
FOLDER_MODE = 0o755
FILE_MODE = 0o644
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
_ALL_USERS = ["0", "0", "4294967295"]  # of a process outside of any user namespace


class NotOwn(PermissionError):
    """The folder is not this user's own; says why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EPERM, why, str(path))


@contextlib.contextmanager
def own_folder(path: Path, *inside: str) -> Iterator[int]:
    """The descriptor of ``path``, or of a folder ``inside`` it, which all have to be this user's own and no links.

    Raises NotOwn, or OSError where there is no such folder.
    """
    fd = _opened(path, None)
    try:
        _check(path, fd)
        for name in inside:
            path /= name
            above, fd = fd, _opened(path, fd)
            os.close(above)
            _check(path, fd)
        yield fd
    finally:
        os.close(fd)


def make_own(path: Path, *inside: str, shared: bool) -> None:
    """Make the folder and those ``inside`` it; ``shared``: another process may have made them for the same user.

    Raises FileExistsError, NotOwn, or another OSError.
    """
    above = os.open(path.parent, _FLAGS & ~os.O_NOFOLLOW)
    try:
        _made(path, above, shared)
    finally:
        os.close(above)
    for name in inside:
        with own_folder(path) as fd:
            _made(path / name, fd, shared)


def is_out_of_reach(path: Path) -> bool:
    """Whether nobody but this user and root can put something else in the place of the folder ``path``.

    That goes for every folder above it and every link on the way.  Where others may write into one, as into /tmp, they
    must not touch there what is not theirs.  Of a folder that does not exist yet only those above count.
    """
    try:
        return _all_trusted(path.absolute(), {0, os.geteuid(), *_without_a_number()})
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def _all_trusted(path: Path, trusted: set[int]) -> bool:
    """Goes down to ``path`` from the root.  Raises OSError where it cannot."""
    ahead, links = list(reversed(path.parts)), 0
    fd = os.open(ahead.pop(), _FLAGS)
    try:
        while ahead:
            name, found = ahead.pop(), os.fstat(fd)
            if found.st_uid not in trusted or (found.st_mode & _WRITABLE and not found.st_mode & stat.S_ISVTX):
                return False
            entry = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(entry.st_mode):
                links += 1
                if entry.st_uid not in trusted or links > _MOST_LINKS:
                    return False
                target = Path(os.readlink(name, dir_fd=fd)).parts
                ahead += reversed(target)
                name = ahead.pop() if Path(target[0]).is_absolute() else "."
            above = fd
            fd = os.open(name, _FLAGS, dir_fd=above)
            os.close(above)
    finally:
        os.close(fd)
    return True


def _opened(path: Path, above: int | None) -> int:
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


def _made(path: Path, above: int, shared: bool) -> None:
    try:
        os.mkdir(path.name, FOLDER_MODE, dir_fd=above)
    except FileExistsError:
        if not shared:
            raise
    fd = _opened(path, above)
    try:
        _check(path, fd)
    finally:
        os.close(fd)


def _without_a_number() -> set[int]:
    """The user for whom all stand that a container without them shows: root of the host, mostly."""
    try:
        if Path("/proc/self/uid_map").read_text(encoding="ascii").split() == _ALL_USERS:
            return set()
        return {int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))}
    except (OSError, ValueError):
        return set()
