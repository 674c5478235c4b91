"""Takes the shards of the other nodes into the run folder of the first one, one node after the other."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from dataclasses import dataclass, field
from hashlib import blake2b

from distprof.launcher.daemon.exchange.protocol import MAX_NODES
from distprof.launcher.daemon.messages import BadMessage
from distprof.launcher.gather.sender import checksum_of
from distprof.launcher.gather.wire import (
    CHUNK_BYTES,
    MAX_FILES,
    Ask,
    Done,
    Offer,
    Part,
    ShardId,
    read_chunk,
    read_offer,
)
from distprof.launcher.store.key_values import KeyValues
from distprof.run_folder import SHARDS, RunFolder
from distprof.safe_folders import FILE_MODE, own_folder
from distprof.shard.frames import FRAME_START

#: Time between two looks: at new offers, and at the chunk that was asked for.
_QUIET_S, _ASKED_S = 1.0, 0.005
#: A node that does not answer for this time loses its turn, and gets it back with its next offer.
_PATIENCE_S = 20.0
#: After so many wrong chunks no more are asked for.
_MOST_BAD = 5


@dataclass
class _Node:
    """What is known of another node."""

    offer: Offer | None = None
    taken: int = 0  # the number of the offer that was taken last
    passed_over: int = 0  # the number of the offer of which it did not send what was asked for
    bad: int = 0
    why_not: str = ""  # why no more is asked for
    sizes: dict[ShardId, int] = field(default_factory=dict)  # of what is here
    checksums: dict[ShardId, int] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        return self.offer is not None and self.offer.number > max(self.taken, self.passed_over) and not self.why_not

    @property
    def shares_folder(self) -> bool:
        return self.offer is not None and self.offer.shares_folder

    @property
    def is_complete(self) -> bool:
        return self.offer is not None and self.offer.final and self.offer.number == self.taken


class Receiver:
    """Moved by :meth:`step`, which never waits."""

    def __init__(self, store: KeyValues, number: int, run: RunFolder, *, waits_for_all: bool = False) -> None:
        """``number`` is that of the first node itself.  ``waits_for_all``: also for the end of the job on nodes that
        share the run folder.
        """
        self._store = store
        self._number = number
        self._run = run
        self._waits_for_all = waits_for_all
        self._nodes: dict[int, _Node] = {}
        self._offers = 0
        self._turn: tuple[int, Ask, float] | None = None  # the node that was asked, for what, and until when
        self._asks = 0
        self.moves = 0  # grows with everything that is taken

    @property
    def is_complete(self) -> bool:
        """Whether everything of all nodes that have come is here."""
        return not self.incomplete()

    @property
    def acknowledged(self) -> bool:
        """Whether all nodes know that their shards are here: the store may end.  Raises OSError."""
        return self._store.add("acknowledged", 0) >= len(self._nodes)

    def incomplete(self) -> list[str]:
        """Returns a few words for each node of which not all is here."""
        return [
            _words(number, node)
            for number, node in self._nodes.items()
            if not (node.is_complete or (node.shares_folder and not self._waits_for_all))
        ]

    def senders(self) -> list[str]:
        """Returns the hosts whose shards are here."""
        return [node.offer.host for node in self._nodes.values() if node.offer is not None and node.offer.sizes]

    def step(self) -> float:
        """Does what there is to do.  Returns the time until it has to look again.  Raises OSError."""
        if self._turn is None:
            self._read_offers()
            self._next_turn()
        if self._turn is None:
            return _QUIET_S
        return 0.0 if self._take(*self._turn) else _ASKED_S

    def _read_offers(self) -> None:
        for number in range(1, min(self._store.add("nodes", 0), MAX_NODES) + 1):
            if number != self._number:
                self._nodes.setdefault(number, _Node())
        written = self._store.add("offers", 0)
        if written == self._offers:
            return
        self._offers = written
        for number, node in self._nodes.items():
            value = self._store.peek(f"offer/{number}")
            with contextlib.suppress(BadMessage):
                offer = None if value is None else read_offer(value)
                if offer is not None and (node.offer is None or offer.number > node.offer.number):
                    self._note(node, offer)

    def _note(self, node: _Node, offer: Offer) -> None:
        if node.offer is not None and offer.launch != node.offer.launch:
            return  # a node has one launcher
        node.offer = offer
        self.moves += 1
        for shard in offer.again:
            node.sizes[shard] = node.checksums[shard] = 0
        for shard in offer.sizes.keys() - node.sizes.keys():
            path = self._run.received_path(*shard, _number_of(offer.launch))
            node.sizes[shard] = node.checksums[shard] = 0
            with contextlib.suppress(OSError):  # mostly there is no such file yet
                size = min(path.stat().st_size, offer.sizes[shard])
                node.sizes[shard], node.checksums[shard] = size, checksum_of(path, size)

    def _next_turn(self) -> None:
        """Asks the next node for a chunk, if one has anything new."""
        for number, node in self._nodes.items():
            if node.offer is None or not node.waits:
                continue
            parts = _missing(node)
            if parts:
                self._asks += 1
                ask = Ask(self._asks, parts)
                self._store.set(f"ask/{number}", ask.packed())
                self._turn = number, ask, time.monotonic() + _PATIENCE_S
                return
            node.taken = node.offer.number
            self._store.set(f"done/{number}", Done(node.taken, node.checksums).packed())
            self.moves += 1

    def _take(self, number: int, ask: Ask, until: float) -> bool:
        """Takes the chunk that was asked for.  Returns whether it has come."""
        node, key = self._nodes[number], f"chunk/{number}"
        value = self._store.peek(key)
        if value is None:
            if time.monotonic() > until:
                node.passed_over = node.offer.number if node.offer is not None else 0
                self._end_turn(number)
            return False
        self._store.delete(key)
        try:
            data = read_chunk(value, ask)
            if data is None:
                return False
            self._write(node, ask, data)
            self.moves += 1
            self._store.add("progress", 1)
        except BadMessage as error:
            node.bad += 1
            node.why_not = str(error) if node.bad >= _MOST_BAD else ""
        except OSError as error:
            node.why_not = f"it cannot be written: {error.strerror}"
        self._end_turn(number)
        return True

    def _end_turn(self, number: int) -> None:
        self._turn = None
        self._store.delete(f"ask/{number}")

    def _write(self, node: _Node, ask: Ask, data: bytes) -> None:
        """Appends the bytes to the shards of a node.  Raises OSError, and BadMessage for what begins as no shard."""
        if node.offer is None:
            return
        start = 0
        for part in ask.parts:
            piece = data[start : start + part.length]
            start += part.length
            if part.offset == 0 and not FRAME_START.startswith(piece[: len(FRAME_START)]):
                raise BadMessage("what it sends is no shard")
            path = self._run.received_path(*part.shard, _number_of(node.offer.launch))
            with own_folder(self._run.path, SHARDS) as folder:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(path.name, flags, FILE_MODE, dir_fd=folder)
            with os.fdopen(fd, "wb") as file:
                os.ftruncate(fd, part.offset)
                file.seek(part.offset)
                file.write(piece)
            node.sizes[part.shard] = part.offset + part.length
            node.checksums[part.shard] = zlib.crc32(piece, node.checksums[part.shard])


def _missing(node: _Node) -> tuple[Part, ...]:
    """Returns what is not here of the shards that a node offers, a chunk at most."""
    parts: list[Part] = []
    left = CHUNK_BYTES
    for shard, size in sorted(node.offer.sizes.items()) if node.offer is not None else ():
        length = min(size - node.sizes[shard], left)
        if length > 0 and len(parts) < MAX_FILES:
            parts.append(Part(shard, node.sizes[shard], length))
            left -= length
    return tuple(parts)


def _number_of(launch: str) -> int:
    """Returns a number for the names of a launch's shards: its text comes from elsewhere."""
    return int.from_bytes(blake2b(launch.encode(errors="replace"), digest_size=4).digest(), "big")


def _words(number: int, node: _Node) -> str:
    name = node.offer.host if node.offer is not None else f"launcher {number}"
    why = node.why_not or ("what it sent earlier is here" if any(node.sizes.values()) else "")
    return f"{name} ({why})" if why else name
