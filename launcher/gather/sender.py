"""Offers the shards of this node to the first one, and sends what that asks for."""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from distprof.launcher.daemon.messages import BadMessage
from distprof.launcher.gather.own_shards import OwnShards
from distprof.launcher.gather.wire import CHUNK_BYTES, Ask, Offer, ShardId, packed_chunk, read_ask, read_done
from distprof.launcher.store.key_values import KeyValues
from distprof.run_folder import RunFolder

#: Time between two looks: at the shards, and at what the first node asks for, before and while it is this node's turn.
#: A job may have 1,000 nodes.
_QUIET_S, _OFFERED_S, _ENDED_S, _ASKED_S = 2.0, 0.5, 0.1, 0.01
#: An offer that the first node does not take for this time is made again.
_AGAIN_S = 30.0
#: How often shards are sent anew because the first node has other bytes.
_MOST_AGAIN = 2


class Sender:
    """Moved by :meth:`step`, which never waits."""

    def __init__(
        self,
        store: KeyValues,
        number: int,
        run: RunFolder,
        host: str,
        is_recording: Callable[[], bool],
        *,
        shares_folder: bool = False,
    ) -> None:
        """``number`` is that of this node; while a window is recorded nothing new is offered.  With ``shares_folder``
        the shards lie in the first node's folder already, and only the end of the job is told.
        """
        self._store = store
        self._number = number
        self._shares_folder = shares_folder
        self._run = run
        self._host = host
        self._is_recording = is_recording
        self._offer = Offer(0, False, host, run.launch, {})
        self._seen: dict[ShardId, int] = {}
        self._own_shards = OwnShards(run)
        self._files: dict[ShardId, int] = {}  # the inode of each
        self._written_anew: set[ShardId] = set()  # since the last offer: windows that came back were reduced
        self._answered = 0
        self._moved = 0.0  # when the first node last asked, or was offered something
        self._is_taken = True
        self._is_asked = False
        self._times_again = 0
        self._is_final = False
        self.is_damaged = False  # the first node has other bytes, also after it got them anew
        self.moves = 0  # grows with everything that is sent

    @property
    def is_complete(self) -> bool:
        """Whether the first node has all shards of the job, which has ended."""
        return self._is_taken and self._offer.final

    def finish(self) -> None:
        """Says that the job has ended: what is offered next is all."""
        self._is_final = True

    def step(self) -> float:
        """Does what there is to do.  Returns the time until it has to look again.  Raises OSError."""
        if self._is_final and not self._offer.final:
            self._publish(self._sizes())
        elif self._is_taken and not self._offer.final:
            self._offer_more()
        elif not self._is_taken and time.monotonic() - self._moved > _AGAIN_S:
            self._publish(self._offer.sizes if self._offer.final else self._sizes(), self._offer.again)
        if self._is_taken:
            return _QUIET_S
        self._is_asked = self._answer() or self._is_asked
        self._look_whether_done()
        if self._is_asked:
            return _ASKED_S
        return _ENDED_S if self._is_final else _OFFERED_S

    def _offer_more(self) -> None:
        """Offers what has been recorded since the last offer, once the shards have stopped growing."""
        if self._is_recording():
            return
        sizes = self._sizes()
        grows, self._seen = sizes != self._seen, sizes
        is_new = sizes != self._offer.sizes or bool(self._written_anew)
        is_new = is_new or (self._shares_folder and not self._offer.number)
        if is_new and not grows:
            self._publish(sizes)

    def _publish(self, sizes: Mapping[ShardId, int], again: frozenset[ShardId] = frozenset()) -> None:
        number, launch = self._offer.number + 1, self._run.launch
        again |= self._written_anew
        self._written_anew = set()
        self._offer = Offer(number, self._is_final, self._host, launch, sizes, again, self._shares_folder)
        self._is_taken = self._is_asked = False
        self._moved = time.monotonic()
        self._store.set(f"offer/{self._number}", self._offer.packed())
        self._store.add("offers", 1)

    def _answer(self) -> bool:
        """Sends the bytes that are asked for, if any are."""
        value = self._store.peek(f"ask/{self._number}")
        if value is None:
            return False
        with contextlib.suppress(BadMessage):
            ask = read_ask(value)
            if ask.number != self._answered:
                self._answered = ask.number
                self._store.set(f"chunk/{self._number}", packed_chunk(ask.number, self._bytes(ask)))
                self.moves += 1
                self._moved = time.monotonic()
                return True
        return False

    def _bytes(self, ask: Ask) -> bytes:
        """Returns the bytes of an ask, of which only those that were offered are read."""
        shards, found = self._run.own_shards(), bytearray()
        for part in ask.parts:
            path = shards.get(part.shard)
            if path is not None and part.offset + part.length <= self._offer.sizes.get(part.shard, 0):
                with path.open("rb") as file:
                    file.seek(part.offset)
                    found += file.read(part.length)
        return bytes(found)

    def _look_whether_done(self) -> None:
        value = self._store.peek(f"done/{self._number}")
        if value is None:
            return
        with contextlib.suppress(BadMessage):
            done = read_done(value)
            if done.number != self._offer.number:
                return
            self.moves += 1
            others = self._differing(done.checksums) if self._offer.final else frozenset()
            if others and self._times_again < _MOST_AGAIN:
                self._times_again += 1
                self._publish(self._offer.sizes, others)
                return
            self.is_damaged = bool(others)
            self._is_taken = True
            self._store.add("acknowledged", int(self._offer.final))

    def _differing(self, checksums: Mapping[ShardId, int]) -> frozenset[ShardId]:
        shards = self._run.own_shards()
        return frozenset(
            shard
            for shard, size in self._offer.sizes.items()
            if checksums.get(shard) != checksum_of(shards[shard], size)
        )

    def _sizes(self) -> dict[ShardId, int]:
        """Returns the sizes of the shards that ranks of this launch have made, and notes which were written anew."""
        found: dict[ShardId, int] = {}
        for shard, path in self._own_shards.paths().items() if not self._shares_folder else ():
            status = path.stat()
            found[shard] = status.st_size
            is_another = self._files.setdefault(shard, status.st_ino) != status.st_ino
            if is_another or status.st_size < self._offer.sizes.get(shard, 0):
                self._files[shard] = status.st_ino
                self._written_anew.add(shard)
        return found


def checksum_of(path: Path, size: int) -> int:
    """Returns the CRC-32 of the first ``size`` bytes of a file.  Raises OSError."""
    checksum, left = 0, size
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while left and (data := file.read(min(left, CHUNK_BYTES))):
            checksum = zlib.crc32(data, checksum)
            left -= len(data)
    return checksum
