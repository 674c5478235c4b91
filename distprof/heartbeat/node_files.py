"""The files with which the processes of one node find their page: ``nodes/KEY.0.json`` in the run folder.

The first process links its file into place, and each other one that comes at the same time finds it there.  If a page
is gone, because its job has ended or the folder was cleaned, the next process links the next number.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distprof.clock import clock_domain
from distprof.heartbeat.leftovers import remove_leftovers
from distprof.heartbeat.page import check_page, create_page
from distprof.heartbeat.page_folder import NoPage, remove_folder
from distprof.run_folder import NODES, RunFolder
from distprof.safe_files import read_regular
from distprof.safe_folders import FILE_MODE, make_own, own_folder

_NAME = re.compile(r"([0-9a-f]{16})\.(\d{1,4})\.json")
_MAX_PAGES = 1000
_MAX_BYTES = 4096
_KEY_BYTES = 8


@dataclass(frozen=True)
class NodeFile:
    """One page of one node."""

    key: str  # of node and page id
    number: int
    node: str  # the :func:`node_id` of its node
    host: str
    token: str


def node_id() -> str:
    """Returns a name that is the same in exactly those processes that can share a page and see each other's pids."""
    parts = [clock_domain(), socket.gethostname(), str(os.geteuid())]
    for name in ("/proc/self/ns/pid", "/proc/self/ns/net", "/dev/shm"):
        try:
            found = Path(name).stat()
            parts.append(f"{found.st_dev}.{found.st_ino}")
        except OSError:
            parts.append("")
    return _hash(*parts)


def node_key(page_id: str) -> str:
    """Returns the name of this node in the run folder, for ranks with this id: that of their launch, as a rule."""
    return _hash(node_id(), page_id)


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=_KEY_BYTES).hexdigest()


def newest_nodes(run: RunFolder) -> list[NodeFile]:
    """Returns the newest page of each node of the run, those that began last first."""
    newest: dict[str, tuple[int, Path]] = {}
    for path, key, number in _names(run):
        if number >= newest.get(key, (-1, path))[0]:
            newest[key] = number, path
    found = [node for _, path in newest.values() if (node := _read(path)) is not None]
    return sorted(found, key=lambda node: (node.host, node.key))


def node_file(run: RunFolder, page_id: str) -> NodeFile | None:
    """Returns the newest page of this node; None if it has none."""
    key = node_key(page_id)
    return next((node for node in newest_nodes(run) if node.key == key), None)


def ensure_page(run: RunFolder, page_id: str) -> tuple[NodeFile, bool]:
    """Returns the page of this node, and whether this process made it.  Raises OSError if there can be none."""
    before = node_file(run, page_id)
    if before is not None and _can_be_opened(before.token):
        return before, False
    number = 0 if before is None else before.number + 1
    if number >= _MAX_PAGES:
        raise NoPage(f"{run.path / NODES} holds {_MAX_PAGES} pages of this node")
    make_own(run.path, NODES, shared=True)
    remove_leftovers()
    made = NodeFile(node_key(page_id), number, node_id(), socket.gethostname(), create_page())
    try:
        _publish(run, made)
    except FileExistsError:  # another process was faster
        remove_folder(made.token)
        found = node_file(run, page_id)
        if found is None:
            raise NoPage(f"{run.path / NODES} cannot be read") from None
        return found, False
    except BaseException:
        remove_folder(made.token)
        raise
    return made, True


def _can_be_opened(token: str) -> bool:
    try:
        check_page(token)
    except OSError:
        return False
    return True


def _publish(run: RunFolder, node: NodeFile) -> None:
    """Writes the file completely or not at all.  Raises FileExistsError if there is one of this number."""
    name = f"{node.key}.{node.number}.json"
    scratch = f"{name}.{uuid.uuid4().hex}"
    text = json.dumps({"node": node.node, "host": node.host, "token": node.token}) + "\n"
    with own_folder(run.path, NODES) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(scratch, flags, FILE_MODE, dir_fd=folder), "w", encoding="utf-8") as file:
            file.write(text)
        try:
            os.link(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(scratch, dir_fd=folder)


def _names(run: RunFolder) -> Iterator[tuple[Path, str, int]]:
    """Yields (path, key, number) of all files."""
    try:
        paths = list((run.path / NODES).iterdir())
    except OSError:
        return
    for path in paths:
        matched = _NAME.fullmatch(path.name)
        if matched is not None:
            yield path, matched[1], int(matched[2])


def _read(path: Path) -> NodeFile | None:
    """Returns the node of a file, which may come from elsewhere; None if it is none."""
    matched = _NAME.fullmatch(path.name)
    try:
        values: Any = json.loads(read_regular(path, _MAX_BYTES))
        node, host, token = (values[name] for name in ("node", "host", "token"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    if matched is None or not all(isinstance(text, str) for text in (node, host, token)):
        return None
    return NodeFile(matched[1], int(matched[2]), node, host, token)
