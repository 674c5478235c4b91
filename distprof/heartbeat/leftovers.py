"""Removes pages that no living process owns: the daemon that would have done so was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time

from distprof.heartbeat.layout import SLOTS
from distprof.heartbeat.page_folder import PAGE, SOCKET, all_tokens, is_of_page, page_folder, remove_folder

#: A younger page may have no daemon and no rank yet.
_YOUNG_S = 60.0


def remove_leftovers() -> None:
    """Looks at all pages of this user on this machine; mostly there are none.  Raises nothing."""
    for token in all_tokens():
        with contextlib.suppress(OSError):
            with page_folder(token) as (_, folder):
                is_left = _is_left(folder)
            if is_left:
                remove_folder(token)


def _is_left(folder: int) -> bool:
    """Whether the page in a folder has no daemon, and no rank has a slot in it.  Raises OSError."""
    names = set(os.listdir(folder))
    if PAGE not in names or not all(map(is_of_page, names)) or time.time() - os.fstat(folder).st_mtime < _YOUNG_S:
        return False
    return not _has_daemon(folder) and not _has_ranks(folder)


def _has_daemon(folder: int) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(1.0)
        try:
            link.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:  # one that does not answer in time lives
            return True
    return True


def _has_ranks(folder: int) -> bool:
    """Whether any process holds the lock on a slot.  Raises OSError."""
    page = os.open(PAGE, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        fcntl.lockf(page, fcntl.LOCK_EX | fcntl.LOCK_NB, SLOTS)
    except BlockingIOError:
        return True
    finally:
        os.close(page)
    return False
