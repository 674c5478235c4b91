"""What reads the shards, this process or several, does not change what is read."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.synthetic import write_run

from distprof.errors import DataError
from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.load import reading
from distprof.merge.load.reading import Executors, in_processes, in_this_process
from distprof.merge.load.run import load_run
from distprof.run_folder import RunFolder
from distprof.shard.reader import OtherSchema


@pytest.fixture(autouse=True)
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of few small shards are read in chunks, too."""
    monkeypatch.setattr(reading, "CHUNK_FILES", 3)
    monkeypatch.setattr(reading, "_LEAST_BYTES", 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two pipeline stages with experts, in which one shard is torn and one is no shard."""
    folder = write_run(tmp_path_factory.mktemp("run"), dp=4, pp=2, ep=2, slow_rank=2)
    run = RunFolder(folder)
    torn = run.shard_path(5, 0)
    torn.write_bytes(torn.read_bytes()[:-100])
    run.shard_path(6, 0).write_bytes(b"no shard")
    return folder


@contextmanager
def threads(size: int) -> Iterator[Executor]:
    assert size > 0
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("executors", [threads, in_processes(2), in_processes(1)])
def test_any_executor_reads_the_same(run: Path, executors: Executors) -> None:
    seen: list[tuple[int, int]] = []
    here, there = load_run(run), load_run(run, lambda *progress: seen.append(progress), executors)
    assert to_json(analyse(here)) == to_json(analyse(there))
    assert here.notes == there.notes and len(here.notes) == 2
    assert seen == [(done, 8) for done in range(1, 9)]


def test_ranks_of_several_chunks_share_what_they_recorded_alike(run: Path) -> None:
    for loaded in (load_run(run), load_run(run, executors=threads)):
        first, *others = loaded.ranks[:4]  # of the first stage; the files of rank 3 are in another chunk
        assert len({id(data.tree) for data in loaded.ranks}) == len({id(data.parameters) for data in loaded.ranks}) == 2
        (one,), (same,) = first.windows.values(), others[-1].windows.values()
        assert one.counts is not None and same.counts is not None
        assert one.counts.forward_macs is same.counts.forward_macs


def test_another_schema_is_the_same_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: object) -> None:
        raise OtherSchema("rank00000.g0.msgpack is of schema 9.0")

    monkeypatch.setattr(reading, "read_shard", other)
    for executors in (in_this_process, in_processes(2)):
        with pytest.raises(OtherSchema, match=r"^rank00000\.g0\.msgpack is of schema 9\.0$"):
            load_run(run, executors=executors)


def test_a_process_that_is_ended_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(reading, "_read", ended)
    with pytest.raises(DataError, match=r"a process that reads shards was ended.*--jobs 1"):
        load_run(run, executors=in_processes(2))
