"""A job whose launcher starts ``distprof exec`` once for each rank, on two nodes that share no folder, as srun does."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.daemon.processes import daemon_pids
from support.scripts import NewWorkplace, Workplace, wait_for

from distprof.heartbeat.node_files import newest_nodes
from distprof.heartbeat.page import open_page
from distprof.heartbeat.slot_reader import read_slots
from distprof.launcher.remote.download import download
from distprof.merge.load.run import LoadedRun, load_run

TRAIN = """
train(Net(), 1_000_000, lambda step: (time.sleep(0.01), step > 8 and os.path.exists("stop") and sys.exit(0)))
"""
TASK = "RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=3 python train.py\n"
STEP = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2"}


@pytest.fixture(scope="module")
def nodes(new_workplace: NewWorkplace) -> tuple[Workplace, Workplace]:
    places = new_workplace().forking(), new_workplace().forking()
    for place in places:
        place.write("train.py", TRAIN)
        place.write("task.sh", TASK)
    return places


def ranks_of_the_page(place: Workplace) -> list[int]:
    (node,) = newest_nodes(place.run_dir())
    page = open_page(node.token)
    found = sorted(rank.rank for _, rank in read_slots(page))
    page.close()
    return found


def test_each_node_has_one_daemon_and_all_tasks_copy_to_one_url(
    nodes: tuple[Workplace, Workplace], tmp_path: Path
) -> None:
    url, started = f"file://{tmp_path}/there", []
    for rank, (node, local) in enumerate(((0, 0), (0, 1), (1, 0))):
        told = {**STEP, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local), "DISTPROF_OUT": url}
        started.append(nodes[node].start_exec("sh", "task.sh", name="x", timed=3, **told))
    for place, ranks in zip(nodes, ([0, 1], [2]), strict=True):
        wait_for(lambda place=place: bool(newest_nodes(place.run_dir())))  # type: ignore[misc]
        wait_for(lambda place=place, ranks=ranks: ranks_of_the_page(place) == ranks)  # type: ignore[misc]
        assert len(daemon_pids(place.run_dir().path)) == 1
    for place in nodes:
        (place.folder / "stop").touch()
    ended = [one.wait() for one in started]
    assert [one.code for one in ended] == [0, 0, 0], ended
    assert [one.err for one in ended[1:]] == ["", ""]
    first, last = ended[0].err.splitlines()[-2:]
    assert "2 of 3 ranks recorded in runs/x; rank 2 left no shard" in first
    assert "distprof merge takes a folder of each node" in first
    assert last == f"distprof: each task copies what its ranks wrote to {url}/x  ->  distprof merge {url}/x"
    copied = load_run(download(f"{url}/x", tmp_path / "runs", lambda done, total: None))
    both = load_run(nodes[0].run_dir().path, others=[nodes[1].run_dir().path])
    assert whole(copied) and whole(both)
    there = sorted(path.name for path in (tmp_path / "there" / "x").iterdir())
    assert there == ["checksums", "run.json", "shards"]
    wait_for(lambda: not any(daemon_pids(place.run_dir().path) for place in nodes))


def whole(run: LoadedRun) -> bool:
    """Whether all three ranks are there, and nothing is to be said of them."""
    return [data.rank for data in run.ranks] == [0, 1, 2] and not run.missing_ranks and not run.notes
