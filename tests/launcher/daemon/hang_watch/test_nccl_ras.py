"""Tests of what is read of NCCL's RAS, against a server that speaks its documented protocol; not against NCCL."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from distprof.launcher.daemon.hang_watch.nccl_ras import describe, query


def member(rank: int, count: int, **status: object) -> dict[str, Any]:
    counts = {"AllReduce": count, "Broadcast": 1}
    return {"rank": rank, "host": "10.0.0.1", "pid": 500 + rank, "status": status, "collective_counts": counts}


#: Of NCCL 2.28.7 and later, in the form of its source.
STATUS = {
    "nccl_version": "2.28.9",
    "communicators_count": 1,
    "communicators": [
        {
            "hash": "0x1",
            "size": 4,
            "ranks_count": 3,
            "missing_ranks_count": 1,
            "ranks": [member(0, 17, async_error=0), member(1, 17, async_error=0), member(2, 16, abort_flag=False)],
            "missing_ranks": [
                {"rank": 3, "host": "10.0.0.2", "pid": 503, "status": {"unresponsive": True, "considered_dead": False}}
            ],
        }
    ],
    "ras": {"collection_time_sec": 0.5, "timeouts_count": 0},
}


@contextmanager
def server(replies: dict[str, bytes]) -> Iterator[tuple[str, int]]:
    """Answers one client: each line by its first words; after a status it closes the connection."""

    def serve() -> None:
        link, _ = listening.accept()
        with link, link.makefile("r") as lines:
            for line in lines:
                reply = next(reply for words, reply in replies.items() if line.startswith(words))
                link.sendall(reply)
                if line.startswith("VERBOSE STATUS"):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()
        thread.join(60)


def replies(status: bytes, format_reply: bytes = b"OK\n") -> dict[str, bytes]:
    return {
        "CLIENT PROTOCOL": b"SERVER PROTOCOL 2\n",
        "TIMEOUT": b"OK\n",
        "SET FORMAT json": format_reply,
        "VERBOSE STATUS": status,
    }


def test_the_status_of_a_job() -> None:
    with server(replies(json.dumps(STATUS, indent=2).encode())) as where:
        found = query(where)
    assert describe(found) == [
        "NCCL's RAS: rank 3 (process 503 on 10.0.0.2) of a communicator of 4 ranks does not answer",
        "NCCL's RAS: AllReduce was called 17 times by most ranks, by rank 2 (process 502 on 10.0.0.1) 16"
        " of a communicator of 4 ranks",
    ]


def test_an_older_nccl_has_no_json() -> None:
    with server(replies(b"", b"ERROR: Unknown command\n")) as where, pytest.raises(ValueError, match="no JSON"):
        query(where)


def test_something_else_answers() -> None:
    with server({"CLIENT": b"HTTP/1.1 400 Bad Request\n"}) as where, pytest.raises(ValueError, match="no RAS"):
        query(where)


@pytest.mark.parametrize(
    "status", [None, [], {"communicators": [{"missing_ranks": 3}]}, {"a": [{"missing_ranks": [1]}]}]
)
def test_a_status_of_another_form(status: object) -> None:
    assert describe(status) == []
