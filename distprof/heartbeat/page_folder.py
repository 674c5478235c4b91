"""The folder of a node's page: new, with a random name, for this user only, in memory or on a local disk.

Others find it by its token, the random part of its name, which the run folder holds.  A token is never used as a path.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distprof.safe_folders import is_out_of_reach

_PREFIX = "distprof-"
_TOKEN = re.compile(r"[a-z0-9_]{8}")
_PRIVATE = 0o077
#: Local file systems on which space can be reserved: a store into a page without space would end the rank.
_LOCAL = frozenset({"tmpfs", "ramfs", "ext2", "ext3", "ext4", "xfs", "overlay"})
#: What the folder may hold; then the files with which a daemon asks the ranks.
FILES = (PAGE, SOCKET) = ("page", "socket")
_OF_LOOKS = re.compile(r"(ask|look)\.\d{1,3}(\.new)?|words(\.new)?")


class NoPage(OSError):
    """There is no page, or it cannot be used; the message says why."""


def bases() -> list[Path]:
    """Returns the folders in which a page's folder may be, the best first."""
    return [Path("/dev/shm"), Path(tempfile.gettempdir())]


def make_folder() -> tuple[Path, str]:
    """Makes a new folder.  Returns it with its token.  Raises NoPage."""
    reasons = []
    for base in bases():
        why = _unsuitable(base)
        if why:
            reasons.append(f"{base} {why}")
            continue
        try:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        except OSError as error:
            reasons.append(f"{base}: {error.strerror}")
            continue
        token = path.name.removeprefix(_PREFIX)
        if _TOKEN.fullmatch(token):
            return path, token
        path.rmdir()
        reasons.append(f"{base} got a folder of another name")
    raise NoPage("; ".join(reasons))


def _unsuitable(base: Path) -> str:
    """Returns why no page may be in ``base``, empty if it may."""
    if not base.is_dir():
        return "is no folder"
    kind = file_system(base)
    if kind not in _LOCAL:
        return f"is on {kind or 'an unknown file system'}, which is not known to be local"
    return "" if is_out_of_reach(base / "new") else "can be replaced by other users"


def file_system(path: Path) -> str:
    """Returns the kind of the file system that ``path`` is on, as the kernel names it; empty if it is unknown."""
    found, longest = "", -1
    real = path.resolve()
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, point, kind, *_ = [*line.split(" "), "", "", ""]
        folder = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point))
        if len(folder.parts) >= longest and (folder == real or folder in real.parents):
            found, longest = kind, len(folder.parts)  # a later mount covers an earlier one
    return found


def all_tokens() -> list[str]:
    """Returns the random parts of the names of all folders that may hold a page."""
    found = []
    for base in bases():
        with contextlib.suppress(OSError):
            found += [name.removeprefix(_PREFIX) for name in os.listdir(base) if name.startswith(_PREFIX)]  # noqa: PTH208
    return [token for token in found if _TOKEN.fullmatch(token)]


@contextlib.contextmanager
def page_folder(token: object) -> Iterator[tuple[Path, int]]:
    """Yields the folder of ``token`` with a descriptor.  Raises NoPage unless it is this user's own and private."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise NoPage("the run folder has no valid token of a page")
    for base in bases():
        path = base / (_PREFIX + token)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            check_private(path, os.fstat(fd))
            yield path, fd
        finally:
            os.close(fd)
        return
    raise NoPage("its page is gone")


def check_private(path: Path, found: os.stat_result) -> None:
    """Raises NoPage unless the folder or file is this user's own, and closed to all others."""
    if found.st_uid != os.geteuid():
        raise NoPage(f"{path} belongs to another user (uid {found.st_uid})")
    if stat.S_IMODE(found.st_mode) & _PRIVATE:
        raise NoPage(f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):o})")


def is_of_page(name: str) -> bool:
    """Whether the folder of a page may hold a file of this name."""
    return name in FILES or _OF_LOOKS.fullmatch(name) is not None


def remove_folder(token: str) -> None:
    """Removes a page's folder with the page; processes that have mapped the page keep it."""
    with contextlib.suppress(OSError), page_folder(token) as (path, fd):
        for name in [entry.name for entry in path.iterdir() if is_of_page(entry.name)]:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=fd)
        path.rmdir()
