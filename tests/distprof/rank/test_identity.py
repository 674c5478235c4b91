"""Tests of which rank a process is, and of the shard's header."""

from __future__ import annotations

import multiprocessing
import os
import platform
from typing import Any

import pytest
import torch
from support.worlds import rank_of

import distprof
from distprof.clock import Anchor
from distprof.rank.identity import Identity, header, identify
from distprof.records import ALONE, ENVIRONMENT, GROUP, OTHER_GROUP
from distprof.shard.validation import validate

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
}


@pytest.mark.parametrize("name", TORCHRUN)
@pytest.mark.parametrize("number", ["99999999999", "9" * 5000, str(1 << 20), "-1", "x", ""])
def test_a_number_that_no_job_has_is_none(name: str, number: str) -> None:
    place = identify({**TORCHRUN, name: number})
    assert place is not None
    validate(header(place, "r", Anchor(0, 0)))
    assert all(type(value) is str or 0 <= value <= 8 for value in vars(place).values())


def test_a_script_by_itself_is_rank_0_of_1() -> None:
    assert identify({}) == Identity(0, 1, 0, 1, 0, ALONE)


def test_torchruns_environment() -> None:
    expected = Identity(rank=5, world_size=8, local_rank=1, local_world_size=4, node_rank=1, claim=ENVIRONMENT)
    assert identify(TORCHRUN) == expected


@pytest.mark.parametrize(
    "names",
    [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ],
    ids=["Open MPI", "MPICH", "Slurm"],
)
def test_other_launchers_environments(names: tuple[str, str]) -> None:
    told = dict(zip(names, "35", strict=True))
    assert identify(told) == Identity(3, 5, 3, 5, 0, ENVIRONMENT)
    assert identify({**TORCHRUN, **told}) == identify(TORCHRUN)


def test_slurms_batch_script_is_no_task_of_a_step() -> None:
    assert identify({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == Identity(0, 1, 0, 1, 0, ALONE)


def test_rank_of_several_waits_for_its_group() -> None:
    """Lightning starts its ranks in this way."""
    assert identify({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}) is None
    with rank_of(2, rank=1):
        assert identify({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == Identity(1, 2, 1, 2, 0, GROUP)


def test_torch_distributed_knows_better_than_the_environment() -> None:
    """Under mp.spawn the environment has no rank, or the parent's."""
    with rank_of(4, rank=2):
        assert identify({}) == Identity(2, 4, 2, 4, 0, GROUP)
        assert identify({"RANK": "2", "WORLD_SIZE": "4"}) == Identity(2, 4, 2, 4, 0, GROUP)
        assert identify({"RANK": "0", "WORLD_SIZE": "1"}) == Identity(2, 4, 2, 4, 0, OTHER_GROUP)


@pytest.mark.parametrize("nonsense", ["", "x", "-1", "1.5", "²"])
def test_numbers_that_are_none_are_passed_over(nonsense: str) -> None:
    assert identify({"RANK": nonsense, "WORLD_SIZE": nonsense}) == Identity(0, 1, 0, 1, 0)


def test_a_rank_outside_its_world_is_not_believed() -> None:
    """Readers refuse such a header."""
    identity = identify({"RANK": "5"})
    assert identity is not None and identity.rank < identity.world_size


def test_a_worker_that_a_rank_started_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It inherits RANK; a worker that joined the process group is a rank."""
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert identify(TORCHRUN) is identify({}) is None
    with rank_of(8, rank=5):
        assert identify(TORCHRUN) == Identity(5, 8, 1, 4, 1, GROUP)


def test_worker_that_asks_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """``distprof.record()`` runs in a process that trains by itself; a process that inherits RANK still belongs to a
    rank.
    """
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert identify({}, asked=True) == Identity(0, 1, 0, 1, 0, ALONE)
    assert identify(TORCHRUN, asked=True) is None


def test_the_header_says_who_and_where_and_on_which_clocks() -> None:
    identity: Any = identify(TORCHRUN)
    found = header(identity, "the-run", Anchor(wall_ns=123, mono_ns=45), torch.device("cpu"))
    validate(found)
    assert (found.rank, found.world_size, found.local_rank, found.local_world_size, found.node_rank) == (5, 8, 1, 4, 1)
    assert (found.run_id, found.generation, found.wall_ns, found.mono_ns) == ("the-run", 0, 123, 45)
    assert (found.pid, found.host, found.device) == (os.getpid(), platform.node(), "cpu")
    assert (found.writer, found.torch, found.python) == (
        distprof.__version__,
        torch.__version__,
        platform.python_version(),
    )
    assert found.device_name
