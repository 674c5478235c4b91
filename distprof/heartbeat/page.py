"""A node's page as a mapped file: made once, then mapped by ranks, by the daemon and by readers."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import stat
from pathlib import Path

from distprof.heartbeat.layout import HEADER, HEADER_BYTES, MAGIC, PAGE_BYTES, SLOT_BYTES, SLOTS, VERSION
from distprof.heartbeat.page_folder import PAGE, NoPage, check_private, make_folder, page_folder, remove_folder

_MODE = 0o600
_FIRST_FREE = 3


class Page:
    """A mapped page.  A slot belongs to the process that holds the lock on the slot's byte of the file; the system
    releases it when the process ends.
    """

    def __init__(self, fd: int) -> None:
        """Maps the page, and owns ``fd``.  The page stays mapped until the process ends.  Raises OSError."""
        self._fd = fd
        self.memory = _mapped(fd)

    def claim(self, preferred: int) -> int | None:
        """Takes a slot for this process, ``preferred`` if it is free.  Returns its index; None if all are taken."""
        for attempt in range(SLOTS):
            index = (preferred + attempt) % SLOTS
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
            except OSError:
                continue
            return index
        return None

    def close(self) -> None:
        """Gives the slot of this process back."""
        os.close(self._fd)


def _mapped(fd: int) -> memoryview:
    """Maps the page without another descriptor: :mod:`mmap` keeps a copy, which a script could take for its own.

    Raises OSError.
    """
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    address = library.mmap(None, PAGE_BYTES, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "the page cannot be mapped")
    return memoryview((ctypes.c_ubyte * PAGE_BYTES).from_address(address)).cast("B")


def create_page() -> str:
    """Makes a page in a new folder, with all its space reserved.  Returns its token.  Raises OSError."""
    folder, token = make_folder()
    try:
        fd = os.open(folder / PAGE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            os.posix_fallocate(fd, 0, PAGE_BYTES)  # without it, a store into a full file system would be a SIGBUS
            os.pwrite(fd, HEADER.pack(MAGIC, VERSION, SLOTS, SLOT_BYTES), 0)
        finally:
            os.close(fd)
    except OSError as error:
        remove_folder(token)
        raise NoPage(f"{folder}: {error.strerror}") from None
    return token


def open_page(token: object) -> Page:
    """Maps the page of ``token``.  Raises OSError: NoPage if it is not this user's own, or no page of this version."""
    fd = _opened(token)
    try:
        return Page(fd)
    except BaseException:
        os.close(fd)
        raise


def check_page(token: object) -> None:
    """Raises OSError where :func:`open_page` would."""
    os.close(_opened(token))


def _opened(token: object) -> int:
    """Returns a descriptor of the page above those of the standard streams: the script may open a closed one again."""
    with page_folder(token) as (folder, above):
        first = os.open(PAGE, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
        try:
            _check(folder / PAGE, first)
            return fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
        finally:
            os.close(first)


def _check(path: Path, fd: int) -> None:
    found = os.fstat(fd)
    check_private(path, found)
    if not stat.S_ISREG(found.st_mode) or found.st_size != PAGE_BYTES:
        raise NoPage(f"{path} is no page of {PAGE_BYTES} bytes")
    head = os.pread(fd, HEADER_BYTES, 0)[: HEADER.size]
    if head != HEADER.pack(MAGIC, VERSION, SLOTS, SLOT_BYTES):
        raise NoPage(f"{path} is a page of another version of distprof")
