"""The collectives of real jobs on gloo, compared with what their scripts do and with each other's ranks.

The ranks are forks of one process.  Each job runs twice, without a recorder and with one: its parameters end with the
same bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from support.scripts import NewWorkplace, Workplace

from distprof.records import (
    TRAINING_THREAD,
    Collectives,
    CollectiveWindow,
    Error,
    Plan,
    Step,
    Timeline,
)
from distprof.shard.reader import Shard

RANKS = 4
SCRIPT = """
import contextlib, json, os, pickle
import distprof
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import irecv, isend  # before any recorder
from torch.multiprocessing import start_processes

RANKS = 4

def mlp():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))

def ring_size():
    "Entries of torch's flight recorder, as a script that uses it itself counts them."
    dump = torch._C._distributed_c10d._dump_fr_trace(includeStackTraces=False)
    return len(pickle.loads(dump)["entries"])

def ddp(rank):
    model = nn.parallel.DistributedDataParallel(mlp(), bucket_cap_mb=0.01)
    group = dist.new_group(range(RANKS), group_desc="mine")
    extra = torch.ones(10)
    def step():
        model(torch.randn(8, 64)).sum().backward()
        dist.all_reduce(extra, group=group)
        dist.barrier()
    return model, step

def fsdp2(rank):
    from torch.distributed.fsdp import fully_shard
    model = mlp()
    for layer in (model[0], model[2]):
        fully_shard(layer)
    fully_shard(model)
    return model, lambda: model(torch.randn(8, 64)).sum().backward()

def tp(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = parallelize_module(mlp(), mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    return model, lambda: model(torch.ones(8, 64)).sum().backward()

def pipeline(rank):
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
    model = nn.Linear(8, 8)
    stage = PipelineStage(model, rank, RANKS, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, 4, loss_fn=nn.functional.mse_loss)
    x = torch.ones(8, 8)
    def step():
        schedule.step(x) if rank == 0 else schedule.step(target=x) if rank == RANKS - 1 else schedule.step()
    return model, step

def messages(rank):
    model = nn.Linear(4, 4)
    following, before = (rank + 1) % RANKS, (rank - 1) % RANKS
    halves = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    half = halves[rank // 2]
    def step():
        model(torch.ones(2, 4)).sum().backward()
        there, back = torch.full((3,), float(rank)), torch.empty(3)
        works = [isend(there, following, tag=7), irecv(back, before, tag=7)]
        for work in works:
            work.wait()
        assert back.tolist() == [float(before)] * 3
        wide = torch.empty(3).double()
        ops = [dist.P2POp(dist.isend, there.double(), following), dist.P2POp(irecv, wide, before)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        if rank % 2 == 0:
            dist.send(there, rank + 1, group=half)
            dist.recv(back)  # from any rank
        else:
            dist.recv(back, rank - 1, group=half)
            dist.send(there, rank - 1)
    return model, step

def all_to_all(rank):
    model = nn.Linear(4, 4)
    sizes = [1 + (rank + other) % 3 for other in range(RANKS)]
    def step():
        model(torch.ones(2, 4)).sum().backward()
        dist.all_to_all_single(torch.empty(sum(sizes), 4), torch.ones(sum(sizes), 4), sizes, sizes)
    return model, step

def train(make, rank, recording):
    torch.manual_seed(5)
    model, step = make(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before, sizes = ring_size(), []
    with recording:
        for _ in range(7):
            step()
            optimizer.step()
            optimizer.zero_grad()
            sizes.append(ring_size() - before)
    patched = vars(torch._C._distributed_c10d.ProcessGroup)["send"], vars(torch._C._distributed_c10d.Work)["wait"]
    assert all(type(function).__name__ == "instancemethod" for function in patched)
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return [p.detach().numpy().tobytes().hex() for p in whole], sizes

def main(rank):
    dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/meeting", rank=rank, world_size=RANKS)
    for make in (ddp, fsdp2, tp, pipeline, messages, all_to_all):
        plain = train(make, rank, contextlib.nullcontext())
        recorded = train(make, rank, distprof.record(name=make.__name__, warmup=1, timed=3))
        assert plain == recorded, make.__name__
    dist.barrier()
    dist.destroy_process_group()

start_processes(main, nprocs=RANKS, start_method="fork")
"""
JOBS = ("ddp", "fsdp2", "tp", "pipeline", "messages", "all_to_all")
LAYER_BYTES = (64 * 64 + 64) * 4


@pytest.fixture(scope="module")
def place(new_workplace: NewWorkplace) -> Workplace:
    """Where four ranks have run all jobs."""
    place = new_workplace().forking()
    place.write("jobs.py", SCRIPT, prelude="")
    ended = place.start("python", "jobs.py").wait()
    assert ended.code == 0, ended.err
    return place


def of(shard: Shard, kind: type) -> list[object]:
    return [record for record in shard.records if type(record) is kind]


def recorded(place: Workplace, job: str, rank: int) -> list[Collectives]:
    """The steps of a rank, after the settling one."""
    return [record for record in of(place.shards(job)[rank], Collectives) if isinstance(record, Collectives)][1:]


Row = tuple[str, int, str, int, int, int]


def rows(step: Collectives) -> list[Row]:
    """Group, number, op, bytes in, bytes out, peer of each entry."""
    return [
        (step.group_names[group], number, step.ops[op], sent, received, peer)
        for group, number, op, sent, received, peer in zip(
            *(step.group.tolist(), step.number.tolist(), step.op.tolist()),
            *(step.input_bytes.tolist(), step.output_bytes.tolist(), step.peer.tolist()),
            strict=True,
        )
    ]


def amounts(step: Collectives) -> Counter[tuple[str, int, int]]:
    """How often each op was seen with its bytes in and out."""
    return Counter((op, sent, received) for _, _, op, sent, received, _ in rows(step))


def window(shard: Shard) -> CollectiveWindow:
    (found,) = of(shard, CollectiveWindow)
    assert isinstance(found, CollectiveWindow)
    return found


@pytest.mark.parametrize("job", JOBS)
def test_every_entry_lies_in_its_step_and_in_order(place: Workplace, job: str) -> None:
    for shard in place.shards(job):
        assert not of(shard, Error)
        found = window(shard)
        assert (found.unseen, found.message_unseen, found.lost) == ("", "", 0)
        assert found.reads == 1 and found.read_ns > 0 and abs(found.clock_shift_ns) < 10_000_000
        steps, timelines, collectives = of(shard, Step), of(shard, Timeline), of(shard, Collectives)
        (plan,) = of(shard, Plan)
        assert isinstance(plan, Plan)
        assert len(steps) == len(timelines) == len(collectives) == plan.settling + plan.timed
        for step, timeline, entries in zip(steps, timelines, collectives, strict=True):
            assert isinstance(step, Step) and isinstance(timeline, Timeline) and isinstance(entries, Collectives)
            assert step.iteration == timeline.iteration == entries.iteration
            assert timeline.end_ns - timeline.start_ns == step.duration_ns
            assert len(entries.enqueued_ns) > 0 and entries.lost == 0
            assert np.all(np.diff(entries.enqueued_ns) >= 0)
            assert timeline.start_ns <= entries.enqueued_ns[0] and entries.enqueued_ns[-1] < timeline.end_ns
            assert set(entries.thread.tolist()) == {TRAINING_THREAD}


@pytest.mark.parametrize("job", JOBS)
def test_ranks_agree_on_their_collectives(place: Workplace, job: str) -> None:
    """(group name, members, number) names one collective: every member has it, with one op, in the same step."""
    shards = place.shards(job)
    assert len(shards) == RANKS
    seen: dict[tuple[str, tuple[int, ...], int], dict[int, tuple[int, str]]] = {}
    for rank, shard in enumerate(shards):
        members = {group.name: group.ranks or tuple(range(RANKS)) for group in window(shard).groups}
        for step in recorded(place, job, rank):
            for name, number, op, _, _, peer in rows(step):
                if peer == -1:
                    key = name, members[name], number
                    assert rank not in seen.setdefault(key, {})
                    seen[key][rank] = step.iteration, op
    for (_, ranks, _), by_rank in seen.items():
        assert sorted(by_rank) == sorted(ranks)
        assert len(set(by_rank.values())) == 1


def test_ddp_reduces_each_parameter_once(place: Workplace) -> None:
    for rank in range(RANKS):
        groups = {group.description: group.name for group in window(place.shards("ddp")[rank]).groups}
        numbers = []
        for step in recorded(place, "ddp", rank):
            default = [row for row in rows(step) if row[0] == groups["default_pg"]]
            reduced = [row[3] for row in default if row[2] == "all_reduce"]
            assert len(reduced) > 1 and sum(reduced) == 2 * LAYER_BYTES
            assert [row[2] for row in default if row[2] != "all_reduce"] == ["barrier"]
            ((_, number, op, sent, received, _),) = (row for row in rows(step) if row[0] == groups["mine"])
            assert (op, sent, received) == ("all_reduce", 40, 40)
            numbers.append(number)
        assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_fsdp2_gathers_and_scatters_its_layers(place: Workplace) -> None:
    """Each layer is gathered in forward and in backward; gloo reduces its gradients as a whole."""
    for rank in range(RANKS):
        for step in recorded(place, "fsdp2", rank):
            gathered = [row for row in rows(step) if row[2] == "all_gather"]
            assert {row[4] for row in gathered} == {LAYER_BYTES} and {row[3] for row in gathered} == {
                LAYER_BYTES // RANKS
            }
            assert len(gathered) == 4
            reduced = [row for row in rows(step) if row[2] == "all_reduce"]
            assert [row[3] for row in reduced] == [LAYER_BYTES] * 2


def test_tensor_parallel_layers_reduce_their_output(place: Workplace) -> None:
    """By a functional collective, in forward; the input needs no gradient."""
    for rank in range(RANKS):
        groups = {group.name: group for group in window(place.shards("tp")[rank]).groups}
        for step in recorded(place, "tp", rank):
            ((name, _, op, sent, received, _),) = rows(step)
            assert (op, sent, received) == ("all_reduce", 8 * 64 * 4, 8 * 64 * 4)
            assert groups[name].description == "mesh_tp"
            assert groups[name].ranks == (rank // 2 * 2, rank // 2 * 2 + 1)


def test_all_to_all_has_the_bytes_of_this_rank(place: Workplace) -> None:
    for rank in range(RANKS):
        size = sum(1 + (rank + other) % 3 for other in range(RANKS)) * 4 * 4
        for step in recorded(place, "all_to_all", rank):
            assert amounts(step) == Counter({("all_to_all", size, size): 1})


def ends_of_messages(place: Workplace, job: str) -> dict[tuple[str, int, int, int, int], dict[str, tuple[int, int]]]:
    """By group, sender, receiver, tag and number: the iteration and the bytes of each end, by op."""
    found: dict[tuple[str, int, int, int, int], dict[str, tuple[int, int]]] = {}
    for rank in range(RANKS):
        for step in recorded(place, job, rank):
            for (name, number, op, sent, received, peer), tag in zip(rows(step), step.tag.tolist(), strict=True):
                if op in ("send", "recv"):
                    ends = (rank, peer) if op == "send" else (peer, rank)
                    one = found.setdefault((name, *ends, tag, number), {})
                    assert op not in one
                    one[op] = step.iteration, sent or received
    return found


@pytest.mark.parametrize("job", ["pipeline", "messages"])
def test_each_message_has_two_ends(place: Workplace, job: str) -> None:
    found = ends_of_messages(place, job)
    for ends in found.values():
        assert set(ends) == {"send", "recv"} and ends["send"] == ends["recv"]


def test_a_pipeline_sends_each_micro_batch_there_and_its_gradient_back(place: Workplace) -> None:
    for rank in range(RANKS):
        for step in recorded(place, "pipeline", rank):
            neighbours = [peer for peer in (rank - 1, rank + 1) if 0 <= peer < RANKS]
            expected = {(op, peer): 4 for op in ("send", "recv") for peer in neighbours}
            assert Counter((op, peer) for _, _, op, _, _, peer in rows(step)) == expected
            assert {max(sent, received) for _, _, _, sent, received, _ in rows(step)} == {2 * 8 * 4}
            assert np.all(step.waited_until_ns >= step.waited_from_ns)
            assert np.all(step.waited_from_ns >= step.enqueued_ns)


def test_sends_and_receives_have_peers_tags_and_waits(place: Workplace) -> None:
    for rank in range(RANKS):
        following, before, other = (rank + 1) % RANKS, (rank - 1) % RANKS, rank ^ 1
        groups = window(place.shards("messages")[rank]).groups
        (default,) = (group.name for group in groups if group.description == "default_pg")
        half = [group.name for group in groups if group.ranks == (rank // 2 * 2, rank // 2 * 2 + 1)][-1]
        first = [("send", half, 0, 12, other), ("recv", default, 0, 12, other)]
        second = [("recv", half, 0, 12, other), ("send", default, 0, 12, other)]
        for step in recorded(place, "messages", rank):
            expected: list[tuple[str, str, int, int, int]] = [
                ("send", default, 7, 12, following),
                ("recv", default, 7, 12, before),
                ("send", default, 0, 24, following),
                ("recv", default, 0, 24, before),
                *(second if rank % 2 else first),
            ]
            found = list(zip(rows(step), step.tag.tolist(), strict=True))
            assert [(op, name, tag, sent or received, peer) for (name, _, op, sent, received, peer), tag in found] == (
                expected
            )
            assert np.all(step.waited_from_ns > 0) and np.all(step.waited_until_ns >= step.waited_from_ns)


# ---- the ring, under `distprof run` ----------------------------------------------------------------------------------

REDUCING = """
import torch.distributed as dist
dist.init_process_group("gloo")
with open(f"ring{dist.get_rank()}", "w") as file:
    file.write(os.environ.get("TORCH_FR_BUFFER_SIZE", "not set"))
x = torch.ones(2)
def reduce(step):
    for _ in range(40):
        dist.all_reduce(x)
train(Net(), 8, reduce)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture
def reducing(new_workplace: NewWorkplace) -> Workplace:
    place = new_workplace().forking()
    place.write("reduce.py", REDUCING)
    return place


def windows(place: Workplace) -> Iterator[tuple[CollectiveWindow, list[Collectives]]]:
    for shard in place.shards():
        yield window(shard), [record for record in of(shard, Collectives) if isinstance(record, Collectives)]


def test_the_ring_of_the_user_wins_and_what_it_loses_is_counted(reducing: Workplace) -> None:
    """The ring has 16 entries; of the 40 of a step, the last ones are read when the step has ended."""
    ended = reducing.run("--nproc", 2, "reduce.py", timed=3, TORCH_NCCL_TRACE_BUFFER_SIZE="16")
    assert ended.code == 0, ended.err
    assert (reducing.folder / "ring0").read_text(encoding="utf-8") == "not set"
    for found, steps in windows(reducing):
        assert found.capacity == 16 and found.unseen == ""
        read = [len(step.number) for step in steps]
        assert read == [16] * 4
        assert [step.lost for step in steps] == [24] * 4 and found.lost == 4 * 24
        for step in steps:
            assert np.all(np.diff(step.number) == 1)


def test_the_ring_of_a_long_window_is_larger_and_loses_nothing(reducing: Workplace) -> None:
    ended = reducing.run("--nproc", 2, "reduce.py", timed=5)
    assert ended.code == 0, ended.err
    assert (reducing.folder / "ring0").read_text(encoding="utf-8") == "3000"
    for found, steps in windows(reducing):
        assert (found.capacity, found.lost, found.reads) == (3000, 0, 1)
        assert [len(step.number) for step in steps] == [40] * 6
        assert np.all(np.diff(np.concatenate([step.number for step in steps])) == 1)


def test_a_ring_that_is_off_and_collectives_that_are_not_wanted_are_told(reducing: Workplace) -> None:
    assert reducing.run("--nproc", 2, "reduce.py", timed=1, name="off", TORCH_FR_BUFFER_SIZE="0").code == 0
    for shard in reducing.shards("off"):
        assert window(shard).unseen == "TORCH_FR_BUFFER_SIZE=0 switches torch's flight recorder off"
        assert window(shard).message_unseen == "" and not of(shard, Error)
    assert reducing.run("--nproc", 2, "--no-collectives", "reduce.py", timed=9, name="without").code == 0
    assert (reducing.folder / "ring0").read_text(encoding="utf-8") == "not set"
    for shard in reducing.shards("without"):
        assert window(shard).unseen == window(shard).message_unseen == "collectives were not to be recorded"
        assert not of(shard, Collectives)


def test_a_job_of_one_process_says_why_it_has_none(new_workplace: NewWorkplace) -> None:
    place = new_workplace().forking()
    place.write("alone.py", "train(Net(), 6)")
    assert place.run("alone.py").code == 0
    (shard,) = place.shards()
    assert window(shard).unseen == window(shard).message_unseen == "no process group was initialized"
    assert not of(shard, Collectives)
