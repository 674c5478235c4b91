"""Writes the files of the report: all of them or, if one cannot be written, none.

A run may come from another person, with symbolic links in the place of the report.  Therefore everything below the
caller's folder is opened by descriptors, folder by folder, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath

from distprof.errors import DataError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


#: The content of a file, whole or in pieces.
Content = bytes | Iterable[bytes]


def write_files(folder: Path, files: Mapping[str, Content], obsolete: Iterable[str] = ()) -> None:
    """Writes ``files`` (path below ``folder`` -> content), replacing each atomically, and removes ``obsolete`` files.

    ``folder`` itself may be a link.  Raises DataError if something cannot be written; the files of an earlier merge are
    unchanged then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            _Files(folder, stack).write(files, obsolete)
    except OSError as error:
        where = folder / os.fsdecode(error.filename) if error.filename else folder
        raise DataError(
            f"the report cannot be written to {where} ({error.strerror}): choose another folder with --out"
        ) from None


class _Files:
    """The folders below ``base``, each opened once; closing ``stack`` closes them and removes temporary files."""

    def __init__(self, base: Path, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._open: dict[PurePath, int] = {}
        self._keep(PurePath(), os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def write(self, files: Mapping[str, Content], obsolete: Iterable[str]) -> None:
        written = [(PurePath(name), self._write_temporary(PurePath(name), content)) for name, content in files.items()]
        for target, temporary in written:
            folder = self._folder(target.parent)
            os.replace(temporary, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        for target in map(PurePath, obsolete):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target.name, dir_fd=self._folder(target.parent, create=False))

    def _write_temporary(self, target: PurePath, content: Content) -> str:
        """Writes ``content`` to a new file beside ``target``, and returns its name."""
        folder, name = self._folder(target.parent), f".{target.name}.{uuid.uuid4().hex}"
        with _errors_named(target.parent):
            file = os.open(name, _NEW_FILE, 0o666, dir_fd=folder)
            self._stack.callback(_remove, name, folder)
            with os.fdopen(file, "wb") as stream:
                stream.writelines([content] if isinstance(content, bytes) else content)
        return name

    def _folder(self, path: PurePath, *, create: bool = True) -> int:
        if path not in self._open:
            outer = self._folder(path.parent, create=create)
            if create:
                with contextlib.suppress(FileExistsError), _errors_named(path):
                    os.mkdir(path.name, dir_fd=outer)
            self._keep(path, _opened(path, outer))
        return self._open[path]

    def _keep(self, path: PurePath, descriptor: int) -> None:
        self._open[path] = descriptor
        self._stack.callback(os.close, descriptor)


@contextlib.contextmanager
def _errors_named(path: PurePath) -> Iterator[None]:
    """Adds the path below the base to an error: other errors lack the folder, and that of a full disk any file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _opened(path: PurePath, outer: int) -> int:
    if stat.S_ISLNK(os.stat(path.name, dir_fd=outer, follow_symlinks=False).st_mode):
        raise OSError(0, "it is a link, which is not followed", str(path))
    return os.open(path.name, _FOLDER, dir_fd=outer)


def _remove(name: str, folder: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
