"""A node that knows of no other node of its job says so once."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from distprof.launcher.daemon import isolation
from distprof.launcher.daemon.isolation import IsolationNotice, has_other_nodes
from distprof.launcher.daemon.status import NodeStatus

_SLURM = {"SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"GROUP_WORLD_SIZE": "2"}, True),
        ({"GROUP_WORLD_SIZE": "1", "SLURM_STEP_NUM_NODES": "4"}, False),  # torchrun on one node of an allocation
        (_SLURM, True),
        ({"SLURM_NNODES": "8"}, False),  # of the allocation: the job may use one of them
        ({"OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, False),
        ({"PMI_SIZE": "8"}, False),
        ({"GROUP_WORLD_SIZE": "many"}, False),
    ],
)
def test_what_launchers_tell_of_the_number_of_nodes(environment: dict[str, str], several: bool) -> None:
    assert has_other_nodes(environment) is several


@pytest.mark.parametrize("shares_folder", [True, False])
def test_it_is_said_once_after_a_while(monkeypatch: pytest.MonkeyPatch, shares_folder: bool) -> None:
    now, said, asked = [100.0], list[str](), list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    notice = IsolationNotice(_SLURM, said.append)

    def others() -> list[NodeStatus]:
        asked.append(now[0])
        return [NodeStatus("b" * 16, "other", 0, 0, ())] if shares_folder else []

    without_ranks = NodeStatus("a" * 16, "host", 0, 0, ())
    alone_in_its_job, with_ranks = (
        NodeStatus("a" * 16, "host", 0, 0, (SimpleNamespace(world_size=size),))  # type: ignore[arg-type]
        for size in (1, 16)
    )
    notice.look(without_ranks, others)
    notice.look(alone_in_its_job, others)
    for now[0] in (500.0, 500.0 + isolation.PATIENCE_S - 1):
        notice.look(with_ranks, others)
    assert not asked
    for now[0] in (501.0 + isolation.PATIENCE_S, 900.0):
        notice.look(with_ranks, others)
    assert len(asked) == 1 and len(said) == (not shares_folder)
    assert shares_folder or "knows of no other node" in said[0]


def test_a_job_on_one_node_is_not_looked_at() -> None:
    notice = IsolationNotice({}, pytest.fail)
    notice.look(NodeStatus("a" * 16, "host", 0, 0, ()), lambda: pytest.fail("nobody has to be asked"))
