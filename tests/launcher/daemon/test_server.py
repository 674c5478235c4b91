"""Tests of the daemon's socket: it answers its user, and lives on whatever anybody sends."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from distprof.launcher.daemon import server as server_module
from distprof.launcher.daemon.messages import MAX_REPLY_BYTES, BadMessage, body_length, frame, framed, unpack
from distprof.launcher.daemon.server import Server


class Running:
    """A server on a thread of the test, with the messages that reached its handler."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[dict[str, Any]] = []
        self.path = folder / "socket"
        fd = os.open(folder, os.O_RDONLY)
        self._server = Server(fd, self._handle)
        os.close(fd)
        self._stopped = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _handle(self, message: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(message)
        if message.get("op") == "refuse":
            raise ValueError("not this")
        return {"text": "x" * int(message.get("size", 0)), **message}

    def _serve(self) -> None:
        while not self._stopped:
            self._server.serve(0.05)

    def stop(self) -> None:
        self._stopped = True
        self._thread.join()
        self._server.close()

    def connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(self.path))
        link.settimeout(120)
        return link

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        with self.connect() as link:
            link.sendall(frame(message))
            return reply(link)


def reply(link: socket.socket) -> dict[str, Any]:
    with link.makefile("rb") as stream:
        return unpack(stream.read(body_length(stream.read(4), MAX_REPLY_BYTES)))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.stop()


def test_it_answers_a_message_and_a_long_reply_arrives_whole(running: Running) -> None:
    assert running.ask({"op": "status"}) == {"op": "status", "text": ""}
    assert len(running.ask({"op": "a", "size": 3_000_000})["text"]) == 3_000_000
    assert running.ask({"op": "refuse"}) == {"error": "not this"}


def test_the_socket_is_private(running: Running) -> None:
    assert running.path.stat().st_mode & 0o777 == 0o600


def test_pieces_of_a_message_are_put_together(running: Running) -> None:
    whole = frame({"op": "pieces"}) * 2
    with running.connect() as link:
        for byte in whole:
            link.sendall(bytes([byte]))
        with link.makefile("rb") as stream:
            for _ in range(2):
                assert unpack(stream.read(body_length(stream.read(4), 1000)))["op"] == "pieces"


def test_10_000_malformed_messages_reach_no_handler_and_it_lives(running: Running) -> None:
    chosen = random.Random(16)
    whole = frame({"op": "status", "ranks": [1, 2, 3]})
    for number in range(500):  # connections, with 20 messages each
        with running.connect() as link, contextlib.suppress(OSError):
            for _ in range(20):
                link.sendall(_malformed(chosen, whole))
            if number % 2:
                link.shutdown(socket.SHUT_WR)
    assert running.ask({"op": "status"})["op"] == "status"
    assert all(isinstance(message, dict) for message in running.seen)
    assert sum(message.get("op") == "window" for message in running.seen) == 0


def _malformed(chosen: random.Random, whole: bytes) -> bytes:
    kind = chosen.randrange(6)
    if kind == 0:
        return framed(chosen.randbytes(chosen.randrange(60)))
    if kind == 1:
        return chosen.randbytes(chosen.randrange(1, 40))
    if kind == 2:
        return struct.pack("<I", chosen.randrange(1 << 32))
    if kind == 3:
        damaged = bytearray(whole)
        damaged[chosen.randrange(4, len(damaged))] ^= 1 << chosen.randrange(8)
        return bytes(damaged)
    if kind == 4:
        return whole[: chosen.randrange(len(whole))]
    return framed(msgpack.packb([chosen.getrandbits(60)] * 9))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        msgpack.packb([1]),
        msgpack.packb({1: 2}),
        msgpack.packb({"a": b"bytes"}),
        msgpack.packb({"a": msgpack.ExtType(4, b"x")}),
        b"\xdf\xff\xff\xff\xff",  # a map of 4 billion
        b"\xdb\xff\xff\xff\xff",  # a text of 4 billion
        b"\x91" * 2000,  # lists in lists
        msgpack.packb({"a": 1}) + b"more",
    ],
)
def test_what_is_no_map_of_plain_values_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack(body)


def test_a_length_above_the_limit_is_refused_before_it_is_received() -> None:
    with pytest.raises(BadMessage, match="4096 is the limit"):
        body_length(struct.pack("<I", 4097), 4096)


def test_a_client_that_says_nothing_is_dropped(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_PATIENCE_S", 0.0)
    with running.connect() as link:
        assert link.recv(1) == b""
    monkeypatch.undo()
    assert running.ask({"op": "status"})["op"] == "status"


def test_many_clients_do_not_keep_it_from_others(running: Running) -> None:
    links = [running.connect() for _ in range(60)]
    for link in links:
        link.close()
    for _ in range(50):  # until it has noticed
        with contextlib.suppress(OSError):
            assert running.ask({"op": "status"})["op"] == "status"
            return
    pytest.fail("it does not answer")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_not_answered(running: Running) -> None:
    running.path.parent.chmod(0o755)
    for folder in running.path.parents:
        folder.chmod(folder.stat().st_mode | 0o111)
    running.path.chmod(0o666)  # as if someone had opened it
    child = os.fork()
    if not child:
        code = 2
        try:
            os.setresuid(12_345, 12_345, 12_345)
            with running.connect() as link, contextlib.suppress(ConnectionError):
                link.sendall(frame({"op": "status"}))
                code = int(link.recv(1) != b"")
            code = 0 if code == 2 else code
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert running.seen == []
