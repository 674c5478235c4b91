"""Tests of run folders that are copied to URLs of fsspec."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import fsspec  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner
from support import synthetic
from support.synthetic import write_run

from distprof.commands.upload import command
from distprof.errors import UsageError
from distprof.launcher.job import record_job
from distprof.launcher.remote import upload as upload_module
from distprof.launcher.remote.checksums import CHECKSUMS
from distprof.launcher.remote.run_files import RunFiles
from distprof.launcher.remote.upload import Upload, UploadFailed
from distprof.launcher.remote.url import is_url
from distprof.launcher.run_setup import Job, choose_options
from distprof.merge.load.run import load_run
from distprof.records import Header, Record
from distprof.run_folder import Manifest, RunFolder

JOB = Job(("train.py",), "train", world_size=2)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "_PAUSES_S", (0.0, 0.0))


def everything(url: str) -> dict[str, bytes]:
    """Returns the files at a URL by their path below it."""
    files, base = fsspec.core.url_to_fs(url)
    found = (path for path in files.find(base) if path.strip("/") != base.strip("/"))  # s3fs: a folder that is new
    return {path.partition(base.strip("/") + "/")[2]: files.cat_file(path) for path in found}


def contents(url: str) -> dict[str, bytes]:
    """Returns the same without the checksums."""
    return {name: content for name, content in everything(url).items() if not name.startswith(f"{CHECKSUMS}/")}


def run_of_two(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "x")
    run.shards.mkdir(parents=True)
    for rank in range(2):
        run.shard_path(rank, 0).write_bytes(b"shard %d" % rank)
    return run


class PutFile:
    """Counts the files that are copied into ``memory://``; the first ``damages`` copies lose their last byte, and the
    first ``failures`` raise.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int = 0, damages: int = 0) -> None:
        self.names: list[str] = []
        self.failures, self.damages = failures, damages
        kind = type(fsspec.filesystem("memory"))
        whole = kind.put_file

        def put_file(files: Any, source: str, target: str, **given: Any) -> None:
            self.names.append(target.rpartition("/")[2])
            if len(self.names) <= self.failures:
                raise ConnectionError("the network is gone")
            whole(files, source, target, **given)
            if len(self.names) <= self.damages:
                files.pipe_file(target, files.cat_file(target)[:-1] + b"?")

        monkeypatch.setattr(kind, "put_file", put_file)


def recorded(variables: Mapping[str, str]) -> int:
    run = RunFolder(Path(variables["DISTPROF_RUN"]))
    run.manifest.unlink()  # of another run than what is made up here
    for rank in range(2):
        synthetic.write_shard(run.shard_path(rank, 0), synthetic.rank_records(synthetic.Job(dp=2), rank))
    return 3


def test_a_job_with_its_report_is_copied_when_it_has_ended(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTPROF_PLOTS", "0")
    merge = url.startswith("file")  # once is enough
    options = choose_options({"name": "x", "merge": merge, "out": url})
    assert record_job(options, JOB, recorded) == 3
    assert capfd.readouterr().err.splitlines()[-1] == f"distprof: all of it is copied to {url}/x"
    there, here = contents(f"{url}/x"), tmp_path / "runs" / "x"
    shards = {"shards/rank00000.g0.msgpack", "shards/rank00001.g0.msgpack"}
    assert shards | ({"report/summary.json"} if merge else set()) <= there.keys()
    assert all((here / name).read_bytes() == content for name, content in there.items())
    assert not any(name.startswith(("inject", "nodes")) for name in there)
    files, base = fsspec.core.url_to_fs(f"{url}/x/shards")
    files.get(base, str(tmp_path / "copied"), recursive=True)
    assert load_run(tmp_path / "copied").missing_ranks == ()


def test_only_what_has_changed_is_copied_again(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "x")
    run.shards.mkdir(parents=True)
    for rank in range(2):
        run.shard_path(rank, 0).write_bytes(b"first")
    copied: list[str] = []
    whole = Upload._copy

    def copy(self: Upload, name: str, state: Any) -> Any:
        copied.append(name)
        return whole(self, name, state)

    monkeypatch.setattr(Upload, "_copy", copy)
    upload = Upload(run, url, lambda: False)
    upload.sync()
    upload.sync()
    with run.shard_path(1, 0).open("ab") as file:
        file.write(b" and more")
    upload.sync()
    assert copied == ["shards/rank00000.g0.msgpack", "shards/rank00001.g0.msgpack", "shards/rank00001.g0.msgpack"]
    assert contents(upload.url)["shards/rank00001.g0.msgpack"] == b"first and more"


def test_a_window_is_copied_at_its_end(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "_LOOK_S", 0.005)
    run, looks = RunFolder(tmp_path / "x"), [0]
    run.shards.mkdir(parents=True)
    run.shard_path(0, 0).write_bytes(b"first")

    def is_recording() -> bool:
        looks[0] += 1
        if looks[0] <= 5:
            assert contents(upload.url) == {}
        return looks[0] <= 5

    upload = Upload(run, url, is_recording)
    upload.start()
    while not contents(upload.url):
        assert upload._thread.is_alive()
    upload.stop()
    assert contents(upload.url) == {"shards/rank00000.g0.msgpack": b"first"} and looks[0] > 5


def test_a_copy_that_fails_is_said_and_the_job_ends_as_it_did(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> NoReturn:
        raise ValueError("no such bucket")

    memory: Any = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "put_file", breaks)
    assert record_job(choose_options({"name": "x", "out": "memory://b"}), JOB, recorded) == 3
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("distprof: not all of it is copied to memory://b/x: ") and "no such bucket" in last
    assert last.endswith("  ->  distprof upload runs/x memory://b")
    run = RunFolder(Path("runs/x"))
    with pytest.raises(UploadFailed, match="no such bucket"):
        Upload(run, "memory://b", lambda: False).sync()


def test_a_url_without_a_driver_is_refused_before_the_job() -> None:
    with pytest.raises(UsageError, match="nosuch://x cannot be used: "):
        choose_options({"out": "nosuch://x"})
    assert choose_options({"out": "a/b"}).url == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://a/b", True), ("memory://", True), ("simplecache::s3://a", True), ("runs", False), ("a:b/c", False)],
)
def test_what_is_a_url(text: str, expected: bool) -> None:
    assert is_url(text) is expected


def check_checksums(url: str, folder: Path) -> int:
    """Copies what is at a URL into ``folder``, and lets ``sha256sum`` check it.  Returns how many files that are."""
    for name, content in everything(url).items():
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    lists = sorted(str(path) for path in (folder / CHECKSUMS).rglob("*.sha256"))
    ended = subprocess.run(
        ["sha256sum", "--check", "--strict", *lists], cwd=folder, check=True, capture_output=True, text=True
    )
    return ended.stdout.count(": OK\n")


def test_each_file_has_its_checksum(url: str, tmp_path: Path) -> None:
    run = run_of_two(tmp_path)
    assert Upload(run, url).sync() == 2
    assert check_checksums(f"{url}/x", tmp_path / "copied") == 2
    with run.shard_path(1, 0).open("ab") as file:
        file.write(b" and more")
    assert Upload(run, url).sync() == 2
    assert check_checksums(f"{url}/x", tmp_path / "copied") == 2


def test_nodes_copy_their_parts_of_one_run_to_one_url(url: str, tmp_path: Path) -> None:
    """Each has a folder of its own; the second one shares its folder with a third launcher, which is at work."""

    def bend(rank: int, records: list[Record]) -> list[Record]:
        assert isinstance(records[0], Header)
        return [replace(records[0], launch=("launch-a", "launch-b", "launch-b", "launch-c")[rank]), *records[1:]]

    runs = [
        RunFolder(write_run(tmp_path / node / "x", dp=4, missing=missing, bend=bend), f"launch-{node}")
        for node, missing in (("a", (1, 2, 3)), ("b", (0,)))
    ]
    for run in runs:
        for rank, _ in run.own_shards():
            trace = run.trace_path(1, rank)
            trace.parent.mkdir(parents=True, exist_ok=True)
            trace.write_bytes(b"trace %d" % rank)
        (run.path / "hangs").mkdir()
        (run.path / "hangs" / "000.json").write_text(run.launch)
    uploads = [Upload(run, url, paths=RunFiles(run).own) for run in runs]
    assert [upload.sync() for upload in uploads] == [4, 4], "manifest and hangs are of the node with rank 0"
    there = contents(f"{url}/x")
    shards, traces = (
        [name.format(rank) for rank in range(3)]
        for name in ("shards/rank0000{}.g0.msgpack", "traces/window1/rank{}.json.gz")
    )
    assert sorted(there) == sorted(["run.json", "hangs/000.json", *shards, *traces])
    assert there["hangs/000.json"] == b"launch-a"
    assert check_checksums(f"{url}/x", tmp_path / "copied") == 8
    copied = load_run(tmp_path / "copied")
    assert ([data.rank for data in copied.ranks], copied.missing_ranks, copied.notes) == ([0, 1, 2], (3,), ())


def test_another_run_of_this_name_is_left_alone(url: str, tmp_path: Path) -> None:
    first, other = (RunFolder(tmp_path / node / "x") for node in "ab")
    for run in (first, other):
        run.shards.mkdir(parents=True)
        run.shard_path(0, 0).write_bytes(run.path.parent.name.encode())
        run.write_manifest(Manifest(f"x-{run.path.parent.name}", "x", ("train.py",), 1, 0))
    uploads = [Upload(run, url) for run in (first, other, first, other)]
    assert [upload.sync() for upload in uploads] == [2] * 4
    assert [upload.url for upload in uploads] == [f"{url}/x", f"{url}/x-2"] * 2
    found = [contents(f"{url}/{name}")["shards/rank00000.g0.msgpack"] for name in ("x", "x-2")]
    assert found == [b"a", b"b"]


def test_another_process_goes_on_with_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of_two(tmp_path)
    files = fsspec.filesystem("memory")
    files.pipe_file("/r/x/shards/rank00000.g0.msgpack", b"shard 0")
    files.pipe_file("/r/x/shards/rank00001.g0.msgpack", b"shard !")  # of this size, with other bytes
    put = PutFile(monkeypatch)
    ended = CliRunner().invoke(command, [str(run.path), "memory://r"])
    assert ended.exit_code == 0 and "all 2 files are in memory://r/x" in ended.stderr
    assert put.names == ["rank00001.g0.msgpack"]
    assert contents("memory://r/x")["shards/rank00001.g0.msgpack"] == b"shard 1"
    files.store.clear()


@pytest.mark.parametrize("fault", ["failures", "damages"])
def test_what_fails_is_tried_again(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, put = run_of_two(tmp_path), PutFile(monkeypatch, **{fault: 2})
    Upload(run, "memory://r").sync()
    assert put.names == ["rank00000.g0.msgpack"] * 3 + ["rank00001.g0.msgpack"]
    assert contents("memory://r/x")["shards/rank00000.g0.msgpack"] == b"shard 0"
    fsspec.filesystem("memory").store.clear()
    put.names.clear()
    setattr(put, fault, 3)
    with pytest.raises(UploadFailed, match=r"cannot be read back with the bytes of|the network is gone"):
        Upload(run, "memory://r").sync()
    assert everything("memory://r/x").keys() <= {"shards/rank00000.g0.msgpack"}, "no checksum of what may be damaged"
    fsspec.filesystem("memory").store.clear()


def test_links_are_not_copied(tmp_path: Path) -> None:
    run = run_of_two(tmp_path)
    (tmp_path / "secret").write_text("secret")
    (run.shards / "rank00002.g0.msgpack").symlink_to(tmp_path / "secret")
    (run.path / "report").symlink_to(tmp_path)
    Upload(run, "memory://r").sync()
    assert set(contents("memory://r/x")) == {f"shards/rank0000{rank}.g0.msgpack" for rank in range(2)}
    fsspec.filesystem("memory").store.clear()


def test_traces_of_torch_are_copied_once_they_are_whole(url: str, tmp_path: Path) -> None:
    trace = RunFolder(tmp_path / "x").trace_path(1, 3)
    trace.parent.mkdir(parents=True)
    trace.write_bytes(b"whole")
    trace.with_name(f".{trace.name}").write_bytes(b"hal")
    upload = Upload(RunFolder(tmp_path / "x"), url, lambda: False)
    upload.sync()
    assert contents(upload.url) == {"traces/window1/rank3.json.gz": b"whole"}
