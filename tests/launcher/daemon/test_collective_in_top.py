"""Tests of the last collective of a rank in the page, in ``top`` and in ``status``: ranks on gloo that wait in one."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scripts import NewWorkplace, Workplace, wait_for

from distprof.heartbeat.node_files import newest_nodes
from distprof.heartbeat.page import Page, open_page
from distprof.heartbeat.slot import LastCollective, RankInfo
from distprof.heartbeat.slot_reader import read_slots
from distprof.probes.collectives.group_status import members_number
from distprof.run_folder import RunFolder

#: In the fifth iteration, a timed one, rank 1 comes late to a collective: it comes when it is told to.
TRAIN = """
import torch.distributed as dist

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.02)

def main():
    dist.init_process_group("gloo")
    rank, mine = dist.get_rank(), dist.new_group([0, 1], group_desc="mine")
    tell_pid(rank)
    model = Net()
    COLLECTIVE
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(8):
        loss = model(torch.ones(2, 4)).sum()
        dist.broadcast(torch.ones(1), 0)
        if rank == 1 and step == 4:
            wait_for("go")
        exchange(loss)
        optimizer.step()
        optimizer.zero_grad()
    dist.destroy_process_group()

main()
"""
PYTHON = """
    def exchange(loss):
        loss.backward()
        dist.all_reduce(torch.ones(1), group=mine)
        work = dist.all_reduce(model.inner.weight.grad, group=mine, async_op=True)
        work.wait()
"""
DDP = """
    model = nn.parallel.DistributedDataParallel(model, process_group=mine)
    def exchange(loss):
        loss.backward()
"""
#: Collectives of C++ code are seen by their numbers only.
FUNCTIONAL = """
    from torch.distributed import _functional_collectives as functional
    def exchange(loss):
        loss.backward()
        functional.all_reduce(torch.ones(1), "sum", mine).sum()
"""


def start(place: Workplace, collective: str) -> Any:
    """Starts two ranks without a launcher that would end one when the other is killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place.write("train.py", TRAIN.replace("    COLLECTIVE\n", collective))
    place.write("both.sh", "for r in 0 1; do RANK=$r LOCAL_RANK=$r WORLD_SIZE=2 python train.py & done; wait\n")
    return place.start_exec("sh", "both.sh", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def seen(page: Page, rank: int) -> RankInfo | None:
    return next((found for _, found in read_slots(page) if found.rank == rank), None)


def shown(place: Workplace, rank: int) -> dict[str, Any]:
    top = place.distprof("top", "runs/x", "--once", "--json")
    assert top.code == 0, top.err
    found: dict[str, Any] = json.loads(top.out)["ranks"][rank]
    return {name.removeprefix("collective_"): value for name, value in found.items() if "collective_" in name}


@pytest.fixture
def page_of(new_workplace: NewWorkplace) -> Callable[[Workplace], Page]:
    def page(place: Workplace) -> Page:
        run = RunFolder(place.folder / "runs" / "x")
        wait_for(lambda: bool(newest_nodes(run)))
        return open_page(newest_nodes(run)[0].token)

    return page


def test_a_rank_that_waits_in_a_collective_is_read_from_outside_also_when_it_was_killed(
    new_workplace: NewWorkplace, page_of: Callable[[Workplace], Page]
) -> None:
    place = new_workplace().forking()
    started = start(place, PYTHON)
    page = page_of(place)
    # Four iterations with two collectives of the group each are over; the next one is not completed.
    expected = LastCollective("mine", 2, members_number((0, 1)), 9, 8, "all_reduce")
    wait_for(lambda: (found := seen(page, 0)) is not None and found.collective == expected)

    def is_late() -> bool:
        """Each rank tells of itself now and then: the other one may do so later."""
        found = seen(page, 1)
        last = None if found is None else found.collective
        return last is not None and (last.op, last.number, last.completed) == ("broadcast", 5, 5)

    wait_for(is_late)
    assert shown(place, 0) == {"group": "mine", "op": "all_reduce", "number": 9, "runs": True}
    table = place.distprof("top", "runs/x", "--once").out
    assert "all_reduce 9 of mine" in table and "broadcast 5 of default_pg, done" in table
    assert "Last seen in all_reduce 9 of mine: rank 0." in place.distprof("status", "runs/x").out
    os.kill(int((place.folder / "pid0").read_text()), signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{(place.folder / 'pid0').read_text()}/exe").exists())
    found = seen(page, 0)
    assert found is not None and found.collective == expected
    assert shown(place, 0) == {"group": "mine", "op": "all_reduce", "number": 9, "runs": True}
    page.close()
    (place.folder / "go").touch()
    started.wait()


@pytest.mark.parametrize(("code", "op"), [(DDP, "all_reduce"), (FUNCTIONAL, "")], ids=["DDP", "other"])
def test_the_op_of_a_collective_of_cpp_code_is_known_of_ddp_only(
    new_workplace: NewWorkplace, page_of: Callable[[Workplace], Page], code: str, op: str
) -> None:
    place = new_workplace().forking()
    started = start(place, code)
    page = page_of(place)

    def last() -> LastCollective | None:
        found = seen(page, 0)
        return None if found is None else found.collective

    wait_for(lambda: (found := last()) is not None and found.group == "mine")
    found, before = last(), None
    while found != before:  # it may have been one of an iteration before
        time.sleep(2)
        found, before = last(), found
    assert found is not None and (found.completed, found.op) == (found.number - 1, op)
    assert shown(place, 0) == {"group": "mine", "op": op or None, "number": found.number, "runs": True}
    assert f"{op or 'collective'} {found.number} of mine" in place.distprof("top", "runs/x", "--once").out
    (place.folder / "go").touch()
    assert started.wait().code == 0
    page.close()
