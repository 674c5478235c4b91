"""Tests of the files with which the processes of a node find their page."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distprof.heartbeat.node_files import ensure_page, newest_nodes, node_file, node_id, node_key
from distprof.heartbeat.page import open_page
from distprof.heartbeat.page_folder import NoPage, remove_folder
from distprof.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir(mode=0o755)
    return RunFolder(tmp_path / "run")


def test_the_first_process_makes_the_page_and_the_others_find_it(base: Path, run: RunFolder) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda _: ensure_page(run, "launch"), range(8))]
    assert len({node.token for node, _ in found}) == 1 and sum(new for _, new in found) == 1
    node = node_file(run, "launch")
    assert node is not None and node.token == found[0][0].token
    open_page(node.token).close()
    assert len([folder for folder in base.iterdir() if folder.name.startswith("distprof-")]) == 1
    assert {file.name for file in (run.path / "nodes").iterdir()} == {f"{node.key}.0.json"}


def test_launches_have_pages_of_their_own(base: Path, run: RunFolder) -> None:
    one, two = (ensure_page(run, launch)[0] for launch in ("a", "b"))
    assert one.token != two.token and one.node == two.node == node_id()
    assert {node.token for node in newest_nodes(run)} == {one.token, two.token}


def test_a_page_that_is_gone_is_replaced(base: Path, run: RunFolder) -> None:
    first, _ = ensure_page(run, "launch")
    remove_folder(first.token)
    second, is_new = ensure_page(run, "launch")
    assert is_new and second.number == 1 and second.token != first.token
    assert [node.token for node in newest_nodes(run)] == [second.token]


def test_files_from_elsewhere_are_ignored(base: Path, run: RunFolder) -> None:
    node, _ = ensure_page(run, "launch")
    nodes = run.path / "nodes"
    other = "0" * 16
    for name, text in {
        f"{other}.0.json": "[" * 100_000,
        f"{other}.1.json": json.dumps({"node": 1, "host": "h", "token": "t"}),
        f"{other}.json": "{}",
    }.items():
        (nodes / name).write_text(text, encoding="utf-8")
    (nodes / f"{'1' * 16}.0.json").symlink_to("/dev/zero")
    os.mkfifo(nodes / f"{'2' * 16}.0.json")
    assert newest_nodes(run) == [node]


def test_a_run_folder_that_cannot_be_written_gives_no_page(base: Path, run: RunFolder) -> None:
    (run.path / "nodes").write_text("in the way", encoding="utf-8")
    with pytest.raises(OSError):
        ensure_page(run, "launch")
    assert not [folder for folder in base.iterdir() if folder.name.startswith("distprof-")]
    (run.path / "nodes").unlink()
    (run.path / "nodes").mkdir(mode=0o777)
    (run.path / "nodes").chmod(0o777)
    with pytest.raises(OSError, match="other users may write"):
        ensure_page(run, "launch")
    assert not [folder for folder in base.iterdir() if folder.name.startswith("distprof-")]


def test_keys_differ_by_launch_and_not_by_time() -> None:
    assert node_key("a") == node_key("a") != node_key("b")


def test_no_more_pages_than_a_limit(base: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distprof.heartbeat.node_files._MAX_PAGES", 1)
    node, _ = ensure_page(run, "launch")
    remove_folder(node.token)
    with pytest.raises(NoPage, match="holds 1 pages"):
        ensure_page(run, "launch")
