"""Tests of the ops that are noted while they run: real ones on gloo, compared with torch's flight recorder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distprof.heartbeat.slot import LastCollective
from distprof.probes.collectives import last_collective
from distprof.probes.collectives.called_ops import CalledOp, KnownOps
from distprof.probes.collectives.group_status import GroupStatus
from distprof.probes.collectives.last_collective import CollectiveFinder
from distprof.topology.process_groups import SeenGroup

#: Prints of each call: what was noted of its group, and what the ring has of the last collective.
SCRIPT = """
import json, pickle, sys, warnings
import torch
import torch.distributed as dist
from torch.distributed import all_reduce  # before the window
from torch._C._distributed_c10d import ProcessGroup, _dump_fr_trace
from distprof.probes.collectives.called_ops import OPS, CalledOps
from distprof.probes.collectives.flight_recorder import op_name

warnings.simplefilter("ignore")
dist.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{sys.argv[1]}")
model, group = torch.nn.Linear(2, 2), dist.distributed_c10d._get_default_group()
whole, parts = torch.ones(4), [torch.ones(4)]
ddp = torch.nn.parallel.DistributedDataParallel(model)
ddp(torch.ones(1, 2)).sum().backward()

def coalesced():
    with dist._coalescing_manager():
        dist.all_reduce(whole)
        dist.all_reduce(parts[0])

def raises():
    try:
        group.allreduce([])
    except RuntimeError:
        return
    raise AssertionError

CALLS = {
    "all_reduce": lambda: all_reduce(whole),
    "asynchronous": lambda: dist.all_reduce(whole, async_op=True).wait(),
    "broadcast": lambda: dist.broadcast(whole, 0),
    "reduce": lambda: dist.reduce(whole, 0),
    "all_gather": lambda: dist.all_gather(parts, whole),
    "all_gather_into_tensor": lambda: dist.all_gather_into_tensor(whole.clone(), whole),
    "all_gather_coalesced": lambda: dist.all_gather_coalesced([parts], [whole]),
    "reduce_scatter_tensor": lambda: dist.reduce_scatter_tensor(whole.clone(), whole),
    "gather": lambda: dist.gather(whole, parts),
    "scatter": lambda: dist.scatter(whole, parts),
    "all_to_all": lambda: dist.all_to_all([whole.clone()], parts),
    "all_to_all_single": lambda: dist.all_to_all_single(whole.clone(), whole),
    "barrier": lambda: dist.barrier(),
    "coalesced": coalesced,
    "raises": raises,
    "ddp": lambda: ddp(torch.ones(1, 2)).sum().backward(),
}
def on_error(what, error):
    raise error

methods = {name: vars(ProcessGroup).get(name) for name in OPS}
ops, found = CalledOps(on_error), {}
ops.open()
for name, call in CALLS.items():
    before = group._get_sequence_number_for_group()
    call()
    ring = _dump_fr_trace(includeCollectives=True, includeStackTraces=False, onlyActive=False)
    last = pickle.loads(ring)["entries"][-1]
    noted = ops.known().called.get(group.group_name)
    is_new = noted is not None and noted.number > before and noted.op
    found[name] = noted[1:] if is_new else None, [last["collective_seq_id"], op_name(last["profiling_name"])]
ops.close()
assert methods == {name: vars(ProcessGroup).get(name) for name in OPS}
print(json.dumps(found))
dist.destroy_process_group()
"""
#: The ring has no op of its own for them on gloo, which makes them of another one.
_MADE_OF_OTHERS = {"reduce_scatter_tensor": "reduce_scatter", "all_gather_coalesced": "all_gather"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = tmp_path_factory.mktemp("store") / "store"
    ended = subprocess.run([sys.executable, "-c", SCRIPT, store], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    parsed: dict[str, Any] = json.loads(ended.stdout)
    return parsed


def test_what_python_code_calls_is_noted_as_the_flight_recorder_has_it(found: dict[str, Any]) -> None:
    called = {name: pair for name, pair in found.items() if name not in ("raises", "ddp", "coalesced")}
    assert len(called) > 10
    for name, (noted, (number, op)) in called.items():
        assert noted == [number, _MADE_OF_OTHERS.get(name, op)], name


def test_what_is_not_one_collective_called_by_python_is_not_noted(found: dict[str, Any]) -> None:
    assert found["raises"][0] is None
    assert found["ddp"][0] is None and found["ddp"][1][1] == "all_reduce"
    assert found["ddp"][1][0] > found["barrier"][1][0]  # the ring has it


#: Prints of each iteration of DDP with buffers: what is said of the group's last collective after the forward, after
#: the backward and after calls by hand, and what the ring has of it.
DDP = """
import json, pickle, sys
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _dump_fr_trace
from distprof.frameworks.torch_native import reducer_groups
from distprof.probes.collectives.called_ops import CalledOps
from distprof.probes.collectives.flight_recorder import op_name

dist.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{sys.argv[1]}")
group, other = dist.distributed_c10d._get_default_group(), dist.new_group([0])
model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
ddp = torch.nn.parallel.DistributedDataParallel(model, process_group=group)

def on_error(what, error):
    raise error

def last(ops):
    number = group._get_sequence_number_for_group()
    ring = pickle.loads(_dump_fr_trace(includeCollectives=True, includeStackTraces=False, onlyActive=False))
    own = [one for one in ring["entries"] if one["process_group"][0] == group.group_name]
    (entry,) = [one for one in own if one["collective_seq_id"] == number]
    known = ops.known().of(group.group_name, number)
    return known and known.op, op_name(entry["profiling_name"])

found = {"groups": []}
for iteration in range(5):
    groups = list(reducer_groups([ddp]))
    found["groups"].append(groups == [group])
    ops = CalledOps(on_error, groups)
    ops.open()
    out = ddp(torch.ones(4, 2)).sum()
    seen = [last(ops)]
    out.backward()
    try:
        dist._broadcast_coalesced(group, [], 1, 0)
    except RuntimeError:
        pass  # nothing was sent: the last one is still the reducer's
    seen.append(last(ops))
    dist.all_gather([torch.ones(1)], torch.ones(1))
    seen.append(last(ops))
    assert ops.known().of(other.group_name, 1) is None
    ops.close()
    found[iteration] = seen
print(json.dumps(found))
dist.destroy_process_group()
"""


def test_what_is_left_of_a_group_is_the_all_reduce_of_its_reducer_once_its_buckets_are_built(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", DDP, tmp_path / "store"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found.pop("groups") == [False, False, True, True, True]
    for iteration, seen in found.items():
        is_built = int(iteration) >= 2
        assert [said for said, _ in seen] == ["broadcast", "all_reduce" if is_built else None, "all_gather"]
        assert all(said in (None, op) for said, op in seen), seen


def finder(monkeypatch: pytest.MonkeyPatch) -> tuple[CollectiveFinder, dict[str, tuple[int, int]]]:
    """Returns a finder, and how far the groups are that it looks at: (enqueued, completed)."""
    progress: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(
        last_collective, "groups", lambda: [SeenGroup(name, f"the {name}", "gloo", (0, 1)) for name in progress]
    )
    monkeypatch.setattr(
        last_collective,
        "group_status",
        lambda seen: [GroupStatus(one.description, 2, 7, *progress[one.name]) for one in seen],
    )
    return CollectiveFinder(), progress


def of(group: str, number: int, completed: int, op: str = "") -> LastCollective:
    return LastCollective(f"the {group}", 2, 7, number, completed, op)


def test_the_collective_that_runs_comes_first_then_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, progress = finder(monkeypatch)
    assert looks.look(KnownOps()) is None
    progress.update(dp=(-1, -1), tp=(0, 0))
    assert looks.look(KnownOps()) is None
    progress.update(dp=(1, -1), tp=(0, 0))
    assert looks.look(KnownOps()) == of("dp", 1, -1)
    progress.update(dp=(5, 5), tp=(9, 9))
    assert looks.look(KnownOps({"dp": CalledOp(2, 5, "barrier")})) == of("dp", 5, 5, "barrier")
    progress.update(tp=(10, 10))
    assert looks.look(KnownOps({"dp": CalledOp(2, 5, "barrier")})) == of("tp", 10, 10)
    progress.update(dp=(6, 5), tp=(12, 12))
    assert looks.look(KnownOps({"tp": CalledOp(3, 12, "reduce")})) == of("dp", 6, 5)


def test_an_op_of_another_number_is_not_shown_for_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, progress = finder(monkeypatch)
    progress.update(dp=(6, 5))
    assert looks.look(KnownOps({"dp": CalledOp(1, 5, "barrier")})) == of("dp", 6, 5)
    assert looks.look(KnownOps({"dp": CalledOp(2, 7, "gather")})) == of(
        "dp", 7, 5, "gather"
    )  # the call is newer than the status
