"""Tests which processes of a job are ranks: each rank has one right shard, and no other process has one.

Launchers, ranks and scripts are forks; what they start themselves are new Pythons or forks of their own.
"""

from __future__ import annotations

import sys
import venv
from collections.abc import Set
from pathlib import Path

import pytest
from support.scripts import TIMED, TIMED_OF_SEVERAL, Ended, NewWorkplace, Workplace, iterations

NET = frozenset(("Net", "Linear"))

#: A rank that starts processes of every kind, before its first forward and in its window; all of them run models.
BUSY = """
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

class Embedded(Dataset):
    "Runs a model of its own, as data sets do that embed what they hold."
    def __init__(self):
        self.model = Other(4, 4)
    def __len__(self):
        return 64
    def __getitem__(self, index):
        with torch.no_grad():
            return self.model(torch.ones(4))

def infer_in_a_fork():
    pid = os.fork()
    if pid == 0:
        infer(Other(4, 4), 30)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def go_on_in_a_fork(model):
    "The child goes on with the rank's own modules."
    pid = os.fork()
    if pid == 0:
        infer(model, 30)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def start(script):
    subprocess.run([sys.executable, script], check=True)

def main():
    rank = int(os.environ["RANK"])
    data = iter(DataLoader(Embedded(), 8, num_workers=1, multiprocessing_context="fork"))
    next(data)
    if rank == 0:
        start("alone.py")
        infer_in_a_fork()
        next(iter(DataLoader(Embedded(), 8, num_workers=1, multiprocessing_context="spawn")))
    dist.init_process_group("gloo")
    net = Net()

    def between(step):
        next(data)
        if rank == 0 and step == 1:
            infer_in_a_fork()
        if rank == 0 and step == 3:
            go_on_in_a_fork(net)
            start("own_group.py")

    infer(net, 7, between)
    tell_pid(rank)
    dist.destroy_process_group()

if __name__ == "__main__":
    main()
"""
ALONE = "infer(Other(4, 4), 30)"
OWN_GROUP = """
import torch.distributed as dist
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
infer(Other(4, 4), 30)
"""

#: A parent that starts its ranks itself; with "spawn", it runs a model before, too.
PARENT = """
import torch.distributed as dist
import torch.multiprocessing as mp

def rank_main(rank, meeting):
    Other(4, 4)(torch.ones(4))  # before the group is joined: nobody knows yet which rank this is
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    infer(Net(), 7)
    tell_pid(rank)
    dist.barrier()
    dist.destroy_process_group()

if __name__ == "__main__":
    method = sys.argv[1]
    if method == "spawn":
        infer(Other(4, 4), 1)
    meeting = f"file://{os.getcwd()}/meeting"
    mp.start_processes(rank_main, args=(meeting,), nprocs=2, start_method=method)
    infer(Other(4, 4), 30)
"""

#: Starts its other rank itself: the script again, told its local rank and how many there are, and no more.
LIGHTNING = """
import lightning
from torch.utils.data import DataLoader

class Task(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()
    def training_step(self, batch, index):
        return self.net(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = lightning.Trainer(strategy="ddp", accelerator="cpu", devices=2, max_steps=7, **quiet)
trainer.fit(Task(), DataLoader(torch.ones(48, 4), batch_size=4))
tell_pid(trainer.global_rank)
"""

#: What torchrun starts is a shell; the rank is one of several Pythons in it, of which two run models on rank 1.
SHELL = """
set -e
python -c "import os; os.write(1, b'no torch in here\\n')"
if [ "$RANK" = 1 ]; then
    python server.py &
    while [ ! -e ready ]; do sleep 0.05; done
fi
python -m package.train
[ "$RANK" = 0 ] || touch done
wait
"""
SERVER = """
infer(Other(4, 4), 30)
open("ready", "w").close()
while not os.path.exists("done"):
    time.sleep(0.05)
"""
TRAIN = """
import torch.distributed as dist
dist.init_process_group("gloo")
infer(Net(), 7)
tell_pid(dist.get_rank())
dist.destroy_process_group()
"""

#: Each rank in a Python that has no recorder, for another reason.
STRANGERS = """
case $RANK in
0) exec python -I stand_in.py ;;
1) exec other/bin/python stand_in.py ;;
esac
"""


def assert_recorded(workplace: Workplace, ended: Ended, known: Set[str] = NET) -> tuple[str, ...]:
    """Checks that both ranks have a full shard, written by their own process, and are in the report; returns the notes.

    ``known``: the classes of the ranks' modules, and of no other process's.
    """
    assert ended.code == 0, ended.err
    assert ended.last_line == "distprof: 2 of 2 ranks recorded in runs/x  ->  distprof merge runs/x"
    pids = {rank: int((workplace.folder / f"pid{rank}").read_text()) for rank in range(2)}
    shards = workplace.shards()
    assert {shard.header.rank for shard in shards} == set(pids)
    for rank, pid in pids.items():
        own = [shard for shard in shards if shard.header.pid == pid]
        assert [(s.header.rank, s.header.world_size, iterations(s)) for s in own] == [(rank, 2, TIMED_OF_SEVERAL)]
    report = workplace.report()
    assert [(row.rank, row.complete) for row in report.ranks] == [(0, True), (1, True)]
    assert {module.class_name for module in report.modules} <= known
    assert not [note for note in report.run.notes if "more than once" in note]
    return report.run.notes


def test_child_processes_are_not_ranks(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking()
    for name, script in {"busy.py": BUSY, "alone.py": ALONE, "own_group.py": OWN_GROUP}.items():
        workplace.write(name, script)
    notes = assert_recorded(workplace, workplace.run("--nproc", 2, "busy.py"))
    # What ran before rank 0 did could not know better.
    early = "rank00000.g0.msgpack, rank00000.g1.msgpack: left out, of a process beside the ranks"
    assert len([note for note in notes if note.startswith(early)]) == 1
    assert len(workplace.shards()) == 4


@pytest.mark.parametrize(("method", "shards"), [("spawn", 3), ("fork", 2)])
def test_multiprocessing_ranks_and_their_parent(method: str, shards: int, new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking()
    workplace.write("parent.py", PARENT)
    assert_recorded(workplace, workplace.exec("python", "parent.py", method))
    assert len(workplace.shards()) == shards


@pytest.mark.stack("lightning")
def test_lightnings_own_ranks_are_the_ranks(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking()
    workplace.write("train.py", LIGHTNING)
    assert_recorded(workplace, workplace.exec("python", "train.py"), known={*NET, "Task", "DistributedDataParallel"})
    assert len(workplace.shards()) == 2


def test_one_of_the_pythons_that_a_shell_starts_is_the_rank(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking()
    for name, script in {"train.sh": SHELL, "server.py": SERVER, "package/train.py": TRAIN}.items():
        workplace.write(name, script)
    ended = workplace.run("--nproc", 2, "--no-python", "bash", "train.sh")
    notes = assert_recorded(workplace, ended)
    assert len([note for note in notes if "left out, of a process beside the ranks" in note]) == 1
    assert ended.out == "no torch in here\n" * 2


def test_pythons_without_a_recorder_are_said_to_be_so(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking_launchers()
    workplace.write("train.sh", STRANGERS)
    workplace.write("torch/__init__.py", "import torch.part", prelude="")
    workplace.write("torch/part.py", "", prelude="")
    # Each its line, whole; the one that Python keeps apart from us finds no torch beside itself, either.
    (workplace.folder / "stand_in.py").write_text(
        "import os, sys\nos.write(1, b'ran\\n')\nif not sys.flags.isolated:\n    import torch"
    )
    venv.create(workplace.folder / "other", symlinks=True)
    ended = workplace.run("--nproc", 2, "--no-python", "bash", "train.sh")
    assert (ended.code, ended.out) == (0, "ran\nran\n")
    first, last = ended.err.splitlines()
    other = workplace.folder / "other" / "bin" / "python"
    assert first == f"distprof: rank 1 is not recorded: {other} has no distprof installed"
    assert last == (
        "distprof: 0 of 2 ranks recorded in runs/x; ranks 0-1 left no shard: killed before the first call of a model, "
        "not able to write here (it said so), or Python did not load distprof (-I, -E or -S, or not installed)"
    )
    merged = workplace.distprof("merge", "runs/x")
    assert (merged.code, merged.out, merged.err.count("\n")) == (1, "", 1)
    assert "no rank recorded anything" in merged.err and "-I, -E or -S" in merged.err
    assert Path(sys.prefix) not in other.resolve().parents


#: Scripts that have nothing to do with one another, and run at the same time.
INDEPENDENT = """
name, other = sys.argv[1:]
infer(Net(), 6)
open(name, "w").close()
while not os.path.exists(other):
    time.sleep(0.02)
"""


def test_scripts_without_rank_are_recorded_separately(new_workplace: NewWorkplace) -> None:
    workplace = new_workplace().forking()
    for name in ("a.py", "b.py"):
        workplace.write(name, INDEPENDENT)
    ended = workplace.exec("bash", "-c", "python a.py a b & python b.py b a; wait")
    assert (ended.code, ended.last_line) == (
        0,
        "distprof: 1 of 1 ranks recorded in runs/x; 2 processes ran models and none was told its RANK: "
        "merging reports the last that began  ->  distprof merge runs/x",
    )
    shards = workplace.shards()
    assert [(shard.header.generation, iterations(shard)) for shard in shards] == [(0, TIMED), (1, TIMED)]
    assert {shard.header.script for shard in shards} == {"a.py", "b.py"}
    assert workplace.report().run.notes[0] == (
        "rank 0 is every process that was told no RANK (a.py, b.py): generation 1, the newest with data, is reported"
    )
