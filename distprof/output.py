"""Where a rank's records go: its shard in the run folder, else a temporary folder, else nowhere; never an exception."""

from __future__ import annotations

import tempfile
from pathlib import Path

from distprof.records import Record
from distprof.rundir import SHARDS, RunDir
from distprof.say import say
from distprof.shard import FileSink, ShardWriter

_MAX_GENERATIONS = 10_000


def open_shard(run: RunDir, rank: int) -> tuple[ShardWriter, int] | None:
    """A writer on a new shard of ``rank``, and its generation; None, said once, when no folder can take it."""
    try:
        return _create(run, rank)
    except OSError as error:
        why = error.strerror or str(error)
    try:
        elsewhere = RunDir(Path(tempfile.mkdtemp(prefix="distprof-")))
        elsewhere.shards.mkdir()
        opened = _create(elsewhere, rank)
        say(f"rank {rank} cannot write to {run.path / SHARDS} ({why}): its shard goes to {elsewhere.path}")
        return opened
    except OSError:
        say(f"rank {rank} is not recorded: neither {run.path / SHARDS} ({why}) nor a temporary folder can be written")
        return None


def _create(run: RunDir, rank: int) -> tuple[ShardWriter, int]:
    for generation in range(_MAX_GENERATIONS):
        try:
            return ShardWriter(FileSink(run.shard_path(rank, generation))), generation
        except FileExistsError:
            continue
    raise OSError(f"{_MAX_GENERATIONS} shards of rank {rank} exist already")


class Output:
    """A rank's shard while it can be written: the first write that fails is said, and ends it."""

    def __init__(self, writer: ShardWriter, rank: int) -> None:
        self._writer: ShardWriter | None = writer
        self._rank = rank

    @property
    def lost(self) -> bool:
        return self._writer is None

    def write(self, *records: Record) -> None:
        for record in records:
            if self._writer is None:
                return
            try:
                self._writer.write(record)
            except OSError as error:
                say(f"rank {self._rank} stops recording, what it recorded so far is kept: {error.strerror or error}")
                self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def abandon(self) -> None:
        """Forget the shard without a word: this is a forked child, and the shard is its parent's."""
        self._writer = None
