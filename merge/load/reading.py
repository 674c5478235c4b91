"""Reads the shards of a run and reduces them: a map over chunks of files, in this process or by any executor.

    files -> chunks -> (a process of an executor) read_chunk: reduced ranks, packed -> unpacked here, in their order

Chunks depend on the files alone, and what ranks share is found again when their chunks are unpacked: the run that is
loaded is the same whatever reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from distprof.errors import DataError
from distprof.merge.load.packing import Outcome, Unread, pack, unpack
from distprof.merge.load.rank import RankData, RankReader
from distprof.merge.load.shared_values import SharedValues
from distprof.merge.processors import usable_processors
from distprof.shard.reader import OtherSchema, read_shard

if TYPE_CHECKING:
    from concurrent.futures import Executor  # it takes a hundredth of the time of merging a small run

#: Gives the executor that reads so many bytes of shards; None: this process reads them.
Executors = Callable[[int], "AbstractContextManager[Executor | None]"]

#: Files that are read in one call: some tens of megabytes.
CHUNK_FILES = 64
#: Shards of fewer bytes are read in this process: others would take longer to start.
_LEAST_BYTES = 64_000_000


@contextmanager
def in_this_process(size: int) -> Iterator[None]:
    """Gives no executor."""
    yield None


def in_processes(jobs: int | None = None) -> Executors:
    """Returns what gives ``jobs`` processes of this machine, by default one for each processor."""

    @contextmanager
    def executors(size: int) -> Iterator[Executor | None]:
        workers = jobs or usable_processors()
        if workers < 2 or size < _LEAST_BYTES or sys.platform != "linux":
            yield None
            return
        from concurrent.futures import ProcessPoolExecutor  # a tenth of the time of merging a small run
        from multiprocessing import get_context

        with ProcessPoolExecutor(workers, get_context("fork"), initializer=_end_by_interrupt) as pool:
            yield pool

    return executors


def read_files(files: Sequence[Path], executors: Executors, progress: Callable[[int], None]) -> list[Outcome]:
    """Returns what was read of each file, in their order; ``progress`` is told how many are read.

    Raises OtherSchema, and DataError if a process that reads was ended.
    """
    with executors(sum(map(_size, files))) as executor:
        outcomes = _read_here(files) if executor is None else _read_by(executor, files)
        found, shared = [], SharedValues()
        for one in outcomes:
            found.append(shared.of_rank(one) if isinstance(one, RankData) else one)
            progress(len(found))
    return found


def _read_here(files: Sequence[Path]) -> Iterator[Outcome]:
    reader = RankReader()
    for file in files:
        yield _read(file, reader)


def _read_by(executor: Executor, files: Sequence[Path]) -> Iterator[Outcome]:
    from concurrent.futures import BrokenExecutor

    reader = RankReader()
    chunks = [
        [str(file.absolute()) for file in files[at : at + CHUNK_FILES]] for at in range(0, len(files), CHUNK_FILES)
    ]
    try:
        for packed in executor.map(read_chunk, chunks):
            yield from unpack(packed, reader)
    except BrokenExecutor:
        raise DataError(
            "a process that reads shards was ended, as where memory is short: --jobs 1 reads them in one process"
        ) from None


def read_chunk(files: Sequence[str]) -> bytes:
    """Returns what was read of some files, packed.  A process of an executor calls it."""
    paths = [Path(file) for file in files]
    reader = _reader_of(str(paths[0].parent))
    return pack([_read(path, reader) for path in paths], reader)


@lru_cache(maxsize=1)
def _reader_of(folder: str) -> RankReader:
    """Returns the reader of a process, which decodes what the ranks of a run share once."""
    return RankReader()


def _read(file: Path, reader: RankReader) -> Outcome:
    try:
        return reader.reduce(read_shard(file, reader.cache), file.name)
    except OtherSchema:
        raise
    except OSError as error:
        return Unread(file.name, f"could not be read ({error.strerror})")
    except MemoryError:
        size = file.stat().st_size
        return Unread(file.name, f"could not be read (its {size:,} bytes need more memory than there is)")
    except DataError as error:
        return Unread(file.name, str(error).removeprefix(f"{file} "))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _end_by_interrupt() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends with the merge, without a traceback
