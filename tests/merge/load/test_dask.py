"""A Dask cluster reads what one process reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.synthetic import write_run

from distprof.errors import UsageError
from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.load import dask, reading
from distprof.merge.load.dask import on_dask
from distprof.merge.load.run import load_run
from distprof.run_folder import RunFolder

distributed = pytest.importorskip("distributed")


def test_workers_of_a_cluster_read_what_is_there_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK_FILES", 2)
    run = write_run(tmp_path / "run", dp=4, ep=2)
    changes = RunFolder(run).shard_path(3, 0)
    whole = changes.read_bytes()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        for content in (whole, whole[:-100]):
            changes.write_bytes(content)
            here, there = load_run(run), load_run(run, executors=on_dask(cluster.scheduler_address))
            assert to_json(analyse(here)) == to_json(analyse(there))
            assert len(there.notes) == (content != whole)


def test_an_address_without_a_scheduler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "_CONNECT_S", 0.2)
    with pytest.raises(UsageError, match=r"^no scheduler of Dask answers at tcp://127\.0\.0\.1:1: "):
        load_run(write_run(tmp_path / "run", dp=1), executors=on_dask("tcp://127.0.0.1:1"))
