"""A real TCPStore of torch in the test's own process, as torchrun's first node has one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import cache
from typing import Any

from torch._C._distributed_c10d import TCPStore

from distprof.launcher.store.tcp_store import TcpStore

#: Each call returns a new connection, as of another node.
Connect = Callable[[], TcpStore]


@cache
def served() -> Any:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def new_keys() -> Connect:
    """Returns what connects to a part of the store that nobody has used."""
    prefix = f"distprof/{uuid.uuid4().hex}/"
    return lambda: TcpStore("127.0.0.1", served().port, prefix)
