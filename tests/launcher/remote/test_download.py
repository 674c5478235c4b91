"""Tests of runs that are copied back from URLs of fsspec."""

from __future__ import annotations

from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
from support.synthetic import write_run

from distprof.errors import DataError
from distprof.launcher.remote.download import download
from distprof.launcher.remote.run_files import is_read_by_merges
from distprof.launcher.remote.upload import Upload
from distprof.merge.load.run import load_run
from distprof.run_folder import RunFolder


class Copies:
    """Counts the files that are copied."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, done: int, total: int) -> None:
        self.done = total


def copied(url: str, out: Path) -> tuple[Path, int]:
    """Returns the folder of a copy, and how many files were copied."""
    copies = Copies()
    return download(url, out, copies), copies.done


def test_a_run_comes_back_and_only_what_has_changed_comes_again(url: str, tmp_path: Path) -> None:
    run = RunFolder(write_run(tmp_path / "here" / "x", dp=2))
    (run.path / "hangs").mkdir()
    (run.path / "hangs" / "000.json").write_text("{}")
    (run.report / "plots").mkdir(parents=True)
    (run.report / "summary.json").write_text("{}")
    run.trace_path(1, 0).parent.mkdir(parents=True)
    run.trace_path(1, 0).write_bytes(b"trace")
    Upload(run, url).sync()
    folder, number = copied(f"{url}/x/", tmp_path / "runs")
    assert (folder, number) == (tmp_path / "runs" / "x", 5)
    names = ["run.json", "hangs/000.json", "shards/rank00000.g0.msgpack", "traces/window1/rank0.json.gz"]
    assert all((folder / name).read_bytes() == (run.path / name).read_bytes() for name in names)
    assert load_run(folder).missing_ranks == () and not (folder / "report").exists()
    whole = run.shard_path(1, 0).read_bytes()
    run.shard_path(1, 0).write_bytes(whole + whole[-200:])
    Upload(run, url).sync()
    assert copied(f"{url}/x", tmp_path / "runs") == (folder, 1)
    assert RunFolder(folder).shard_path(1, 0).read_bytes() == whole + whole[-200:]


def test_a_folder_here_that_is_no_copy_of_it_is_left_alone(tmp_path: Path) -> None:
    Upload(RunFolder(write_run(tmp_path / "here" / "x", dp=2)), f"file://{tmp_path}/there").sync()
    mine = write_run(tmp_path / "runs" / "x", dp=2, missing=(1,))
    before = sorted(path.name for path in mine.rglob("*"))
    folder, _ = copied(f"file://{tmp_path}/there/x", tmp_path / "runs")
    assert folder.name == "x-2" and sorted(path.name for path in mine.rglob("*")) == before
    assert copied(f"file://{tmp_path}/there/x", tmp_path / "runs") == (folder, 0)


def test_shards_that_were_copied_by_other_means(tmp_path: Path) -> None:
    run = RunFolder(write_run(tmp_path / "here", dp=2))
    files = fsspec.filesystem("memory")
    for path in run.shard_files():
        files.pipe_file(f"/bucket/mine/{path.name}", path.read_bytes())
    files.pipe_file("/bucket/mine/train.py", b"")
    folder, number = copied("memory://bucket/mine", tmp_path / "runs")
    assert number == 2 and load_run(folder).missing_ranks == () and not (folder / "train.py").exists()
    files.store.clear()


def test_bytes_that_differ_from_their_checksum_are_refused(tmp_path: Path) -> None:
    Upload(RunFolder(write_run(tmp_path / "here" / "x", dp=1)), "memory://r").sync()
    files = fsspec.filesystem("memory")
    files.pipe_file("/r/x/shards/rank00000.g0.msgpack", b"other bytes")
    with pytest.raises(DataError, match="other bytes than its checksum says"):
        download("memory://r/x", tmp_path / "runs", Copies())
    assert RunFolder(tmp_path / "runs" / "x").shard_files() == []
    files.store.clear()


@pytest.mark.parametrize("there", [{}, {"run.json": b"{}"}])
def test_a_url_without_a_run(there: dict[str, bytes], tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    for name, content in there.items():
        files.pipe_file(f"/r/x/{name}", content)
    with pytest.raises(DataError, match="memory://r/x is no run: it has no shards"):
        download("memory://r/x", tmp_path / "runs", Copies())
    assert not (tmp_path / "runs").exists()
    files.store.clear()


@pytest.mark.parametrize(
    "name",
    [
        "../rank00000.g0.msgpack",
        "shards/../../rank00000.g0.msgpack",
        "/shards/rank00000.g0.msgpack",
        "shards/rank00000.g0.msgpack\n",
        "shards/rank0000\u0661.g0.msgpack",
        "inject/sitecustomize.py",
        "report/report.html",
        "traces/window1/../rank0.json.gz",
        "hangs/1.json",
    ],
)
def test_a_name_from_elsewhere_is_never_a_path(name: str) -> None:
    assert not is_read_by_merges(name)
