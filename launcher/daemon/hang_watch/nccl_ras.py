"""Evidence of NCCL itself: its RAS service on this node, which NCCL 2.24 and later starts in each job.

The protocol is NVIDIA's (user guide, RAS): a handshake, ``SET FORMAT json`` (2.28.7 and later), ``VERBOSE STATUS``.
NCCL answers that, and closes the connection.  This code was tested against a server that speaks this protocol, not
against NCCL.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from threading import Thread
from typing import Any

_ADDRESS = ("localhost", 28028)
_VARIABLE = "NCCL_RAS_ADDR"
_PROTOCOL = 2
#: For each message, and for NCCL's processes to answer each other.
_PATIENCE_S, _RANKS_S = 2.0, 5
_MOST_BYTES, _MOST_LINE = 1 << 24, 1 << 12
_MOST_SENTENCES = 20


class RasQuery:
    """A query that runs on a thread of its own."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def sentences(self) -> list[str]:
        """Returns what RAS says so far; nothing where none answers."""
        return list(self._sentences)

    def _run(self) -> None:
        try:
            self._sentences = describe(query(address()))
        except (OSError, ValueError, RuntimeError):
            return


def address() -> tuple[str, int]:
    """Returns the address of RAS: that of the variable of NCCL, else its default."""
    host, _, port = os.environ.get(_VARIABLE, "").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdecimal() else _ADDRESS


def query(where: tuple[str, int]) -> Any:
    """Returns the status as NCCL's JSON.  Raises OSError, and ValueError for something that is no RAS."""
    with socket.create_connection(where, _PATIENCE_S) as link:
        if not _call(link, f"CLIENT PROTOCOL {_PROTOCOL}").upper().startswith("SERVER PROTOCOL "):
            raise ValueError("no RAS answers")
        for words in (f"TIMEOUT {_RANKS_S}", "SET FORMAT json"):
            if _call(link, words).upper() != "OK":
                raise ValueError("this RAS has no JSON")
        link.settimeout(_RANKS_S + _PATIENCE_S)
        link.sendall(b"VERBOSE STATUS\n")
        received = bytearray()
        while chunk := link.recv(1 << 16):
            received += chunk
            if len(received) > _MOST_BYTES:
                raise ValueError("the status is too long")
    return json.loads(received)


def _call(link: socket.socket, words: str) -> str:
    link.sendall(f"{words}\n".encode())
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = link.recv(1)
        if not byte or len(line) > _MOST_LINE:
            raise ValueError("no line")
        line += byte
    return line.decode("utf-8", "replace").strip()


def describe(status: Any) -> list[str]:
    """Returns a sentence for each rank that NCCL misses, and for each communicator whose ranks are not equally far."""
    try:
        return list(dict.fromkeys(_sentences(status)))[:_MOST_SENTENCES]
    except (TypeError, KeyError, AttributeError):
        return []


def _sentences(status: Mapping[str, Any]) -> Iterator[str]:
    for communicator in _communicators(status):
        ranks, missing = communicator["ranks"], communicator["missing_ranks"]
        of = f"of a communicator of {len(ranks) + len(missing)} ranks"
        for rank in missing:
            how = "is considered dead" if rank["status"].get("considered_dead") else "does not answer"
            yield f"NCCL's RAS: {_name(rank)} {of} {how}"
        for rank in ranks:
            if rank["status"].get("async_error") or rank["status"].get("abort_flag"):
                yield f"NCCL's RAS: {_name(rank)} {of} has an error, or was aborted"
        yield from (f"NCCL's RAS: {sentence} {of}" for sentence in _uneven(ranks))


def _communicators(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for found in status.values():
        if isinstance(found, list):
            yield from (one for one in found if isinstance(one, dict) and "missing_ranks" in one)


def _uneven(ranks: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yields where ranks have called different numbers of a collective: the fewest are late, or have left."""
    for op in ranks[0]["collective_counts"] if ranks else ():
        counts = Counter(int(rank["collective_counts"][op]) for rank in ranks)
        if len(counts) > 1:
            usual, _ = counts.most_common(1)[0]
            odd = [rank for rank in ranks if rank["collective_counts"][op] != usual]
            names = ", ".join(f"{_name(rank)} {rank['collective_counts'][op]}" for rank in odd[:4])
            yield f"{op} was called {usual} times by most ranks, by {names}"


def _name(rank: Mapping[str, Any]) -> str:
    return f"rank {int(rank['rank'])} (process {int(rank['pid'])} on {str(rank['host'])[:100]})"
