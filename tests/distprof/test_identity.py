"""Which rank a process is, and what a shard's header says of it."""

from __future__ import annotations

import multiprocessing
import os
import platform
from typing import Any

import pytest
import torch
from support.worlds import rank_of

import distprof
from distprof.checks import check
from distprof.clock import Anchor
from distprof.identity import Identity, header, identify

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
}


def test_a_script_by_itself_is_rank_0_of_1() -> None:
    assert identify({}) == Identity(0, 1, 0, 1, 0)


def test_torchruns_environment() -> None:
    assert identify(TORCHRUN) == Identity(rank=5, world_size=8, local_rank=1, local_world_size=4, node_rank=1)


def test_torch_distributed_knows_better_than_the_environment() -> None:
    """Under mp.spawn the environment says nothing, or what the parent's said."""
    with rank_of(4, rank=2):
        assert identify({}) == Identity(2, 4, 2, 4, 0)
        assert identify({"RANK": "0", "WORLD_SIZE": "1"}) == Identity(2, 4, 2, 4, 0)


@pytest.mark.parametrize("nonsense", ["", "x", "-1", "1.5", "²"])
def test_numbers_that_are_none_are_passed_over(nonsense: str) -> None:
    assert identify({"RANK": nonsense, "WORLD_SIZE": nonsense}) == Identity(0, 1, 0, 1, 0)


def test_a_rank_outside_its_world_is_not_believed() -> None:
    """A header like that would be refused by every reader."""
    identity = identify({"RANK": "5"})
    assert identity is not None and identity.rank < identity.world_size


def test_a_worker_that_a_rank_started_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It inherits RANK; but one that joined the process group is a rank."""
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert identify(TORCHRUN) is None
    assert identify({}) == Identity(0, 1, 0, 1, 0)
    with rank_of(8, rank=3):
        assert identify(TORCHRUN) == Identity(3, 8, 1, 4, 1)


def test_the_header_says_who_and_where_and_on_which_clocks() -> None:
    identity: Any = identify(TORCHRUN)
    found = header(identity, "the-run", 2, Anchor(wall_ns=123, mono_ns=45), torch.device("cpu"))
    check(found)
    assert (found.rank, found.world_size, found.local_rank, found.local_world_size, found.node_rank) == (5, 8, 1, 4, 1)
    assert (found.run_id, found.generation, found.wall_ns, found.mono_ns) == ("the-run", 2, 123, 45)
    assert (found.pid, found.host, found.device) == (os.getpid(), platform.node(), "cpu")
    assert (found.writer, found.torch, found.python) == (
        distprof.__version__,
        torch.__version__,
        platform.python_version(),
    )
    assert found.device_name
