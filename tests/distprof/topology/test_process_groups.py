"""The process groups of a rank, as torch keeps them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from distprof.probes.collectives.flight_recorder import FlightRecorder
from distprof.topology.process_groups import groups


@pytest.fixture
def no_group_outlives_the_test() -> Iterator[None]:
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("no_group_outlives_the_test")
@pytest.mark.parametrize("backend", ["gloo", None])
def test_backend(backend: str | None) -> None:
    """Without a backend, as ``init_device_mesh`` makes the group, torch has one for each device type."""
    dist.init_process_group(backend, rank=0, world_size=1, store=HashStore())
    (seen,) = groups()
    assert (seen.description, seen.ranks) == ("default_pg", (0,))
    assert "gloo" in seen.backend
    recorder = FlightRecorder(0)
    recorder.open(0)
    assert recorder.unseen == ""
