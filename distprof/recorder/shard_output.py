"""The shard of a rank: in the run folder, else in a temporary folder, else none; never raises."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import RLock

from distprof.console import say
from distprof.errors import DataError, said
from distprof.recorder.windows.reduction import reduced, windows_in
from distprof.records import Error, Header, Record
from distprof.run_folder import SHARDS, RunFolder
from distprof.safe_folders import FOLDER_MODE, own_folder
from distprof.shard.reader import read_shard
from distprof.shard.writer import FileSink, ShardWriter

_MAX_GENERATIONS = 10_000
#: The end of the name of a shard that is being written anew: no reader takes it for a shard.
_SCRATCH = "new"
#: The longest time that a job waits for the writing of all records together.  A writer thread would lose unwritten
#: records in ``os._exit``, right after a step.
PATIENCE_S = 10.0


def open_shard(run: RunFolder, header: Header, is_taken: Callable[[], bool]) -> ShardWriter | None:
    """Returns a writer for a new shard of the next free generation, which begins with ``header``.

    Returns None if no folder can be written, with a message, and if ``is_taken`` says that another process is the rank.
    """
    try:
        return _create(run, header, is_taken)
    except OSError as error:
        why = error.strerror or said(error)
    try:
        elsewhere = RunFolder(Path(tempfile.mkdtemp(prefix="distprof-")))
        elsewhere.shards.mkdir(FOLDER_MODE)
        writer = _create(elsewhere, header, lambda: False)
        say(f"rank {header.rank} cannot write to {run.path / SHARDS} ({why}): its shard goes to {elsewhere.path}")
        return writer
    except OSError:
        folder = f"neither {run.path / SHARDS} ({why}) nor a temporary folder"
        say(f"rank {header.rank} is not recorded: {folder} can be written")
        return None


def _create(run: RunFolder, header: Header, is_taken: Callable[[], bool]) -> ShardWriter | None:
    """Creates the shard; concurrent processes create theirs one after the other, and each sees the earlier ones."""
    with own_folder(run.path, SHARDS) as folder:
        generation = _free_generation(run, header.rank, 0)
        while not is_taken():  # asked after the free generation is known: it goes to this process or to none
            try:
                path = run.shard_path(header.rank, generation)
                return _open_writer(path, folder, replace(header, generation=generation))
            except FileExistsError:  # another process was faster: it may be the rank
                generation = _free_generation(run, header.rank, generation + 1)
    return None


def _free_generation(run: RunFolder, rank: int, first: int) -> int:
    """Returns the first free generation from ``first`` on.  Raises OSError if there are too many."""
    generation = next(number for number in count(first) if not os.path.lexists(run.shard_path(rank, number)))
    if generation >= _MAX_GENERATIONS:
        raise OSError(f"{_MAX_GENERATIONS} shards of rank {rank} exist already")
    return generation


def _open_writer(path: Path, folder: int, header: Header) -> ShardWriter:
    writer = ShardWriter(FileSink(path, folder))
    try:
        writer.write(header)
    except BaseException:  # of any kind: no empty shard stays
        writer.close()
        os.unlink(path.name, dir_fd=folder)
        raise
    return writer


def replaced_shard(writer: ShardWriter, sink: FileSink, keep: int, most: int) -> ShardWriter:
    """Returns the writer of a shard with fewer windows in the place of the one of ``sink``, or ``writer`` if it has no
    more than ``most`` windows.  Raises OSError or DataError; the shard is unchanged then.
    """
    if not sink.is_in_place():
        return writer
    shard = read_shard(sink.path)
    if shard.report.damaged or windows_in(shard.records) <= most:
        return writer
    name = sink.path.name
    scratch = f"{name}.{_SCRATCH}"
    with own_folder(sink.path.parent) as folder:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch, dir_fd=folder)
        replaced = FileSink(sink.path.with_name(scratch), folder)
        smaller = ShardWriter(replaced)
        try:
            for record in reduced(shard.records, keep):
                smaller.write(record)
            os.replace(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            smaller.close()
            with contextlib.suppress(OSError):
                os.unlink(scratch, dir_fd=folder)
            raise
    replaced.path = sink.path
    writer.close()
    return smaller


class ShardOutput:
    """Writes a rank's shard until a write fails or writing takes too long, which is reported once."""

    def __init__(self, writer: ShardWriter, rank: int, patience_s: float = PATIENCE_S) -> None:
        self._writer: ShardWriter | None = writer
        self._rank = rank
        self._patience_s = self._patience_of_windows_s = patience_s
        self._lock = RLock()  # the thread that compares clocks writes, too; a signal handler may write within a write

    @property
    def lost(self) -> bool:
        return self._writer is None

    def write(self, *records: Record) -> None:
        if not records:
            return
        with self._lock:
            if self._writer is not None:
                self._write(self._writer, records)

    def _write(self, writer: ShardWriter, records: Sequence[Record]) -> None:
        began = time.perf_counter()
        try:
            writer.write(*records)
        except OSError as error:
            self._give_up(error.strerror or said(error))
        self._patience_s -= time.perf_counter() - began
        if self._patience_s < 0 and self._writer is not None:
            self._give_up("writing it keeps the job waiting, the file system is too slow")

    def reduce_windows(self, keep: int, most: int) -> None:
        """Reduces all windows but the last ``keep`` to their summaries, if the shard holds more than ``most`` of them.

        The shard is written anew and then replaced: whoever reads it, and whoever kills this process, leaves or finds
        the one or the other.  Where that fails, the shard stays as it is and goes on.  The time that a job waits for
        writing is counted anew from here on: a job has any number of windows.
        """
        with self._lock:
            if self._writer is None or not isinstance(self._writer.sink, FileSink):
                return
            self._patience_s = self._patience_of_windows_s
            began = time.perf_counter()
            with contextlib.suppress(OSError, DataError):
                self._writer = replaced_shard(self._writer, self._writer.sink, keep, most)
            self._patience_s -= time.perf_counter() - began

    def _give_up(self, why: str) -> None:
        """Ends the shard with the reason: a record that did not fit leaves free space, mostly enough for it."""
        say(f"rank {self._rank} stops recording, what it recorded so far is kept: {why}")
        with contextlib.suppress(OSError):
            if self._writer is not None:
                self._writer.write(Error("writing its shard", why))
        self._close()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def abandon(self) -> None:
        """Forgets the shard without writing: this is a forked child, and the shard belongs to its parent."""
        self._writer = None
