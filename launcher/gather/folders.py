"""Which node is the first one, and whether the nodes of a job share its run folder."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from distprof.launcher.daemon.messages import BadMessage, pack, unpack
from distprof.launcher.store.key_values import KeyValues
from distprof.run_folder import NODES, RunFolder, write_own
from distprof.safe_files import read_regular
from distprof.safe_folders import make_own

_KEY = "folder"
_FILE = "first"
_MOST_BYTES = 400


@dataclass(frozen=True)
class FirstNode:
    """The node with the store: its host, and whether its run folder is that of this node, too."""

    host: str
    shares_folder: bool


def announce(store: KeyValues, run: RunFolder, host: str) -> None:
    """Says that this node is the first one.  Raises OSError."""
    token = uuid.uuid4().hex
    make_own(run.path, NODES, shared=True)
    write_own(run.path / NODES, _FILE, token)
    store.set(_KEY, pack({"token": token, "host": host}))


def first_node(store: KeyValues, run: RunFolder) -> FirstNode | None:
    """Returns the first node once it has announced itself.  Raises OSError."""
    value = store.peek(_KEY)
    try:
        message = {} if value is None or len(value) > _MOST_BYTES else unpack(value)
    except BadMessage:
        message = {}
    token, host = message.get("token"), message.get("host")
    if not isinstance(token, str) or not isinstance(host, str):
        return None
    try:
        own = read_regular(run.path / NODES / _FILE, _MOST_BYTES)
    except OSError:
        own = b""
    return FirstNode(host, own == token.encode(errors="replace"))
