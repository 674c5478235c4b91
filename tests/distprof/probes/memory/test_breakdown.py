"""Tests of the memory breakdown: bytes computed by hand, of this rank only, with nothing kept alive."""

from __future__ import annotations

import gc
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from support.recording import record, train
from support.worlds import rank_of
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from distprof.probes.memory.breakdown import MemoryBreakdown
from distprof.records import Error, Memory, MemoryUnknown, Step

FLOAT = 4


def stepped(model: nn.Module, *optimizers: torch.optim.Optimizer) -> Memory:
    """Returns the record after one backward and a step of each optimizer."""
    memory = MemoryBreakdown()
    model(torch.ones(2, 8)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
        memory.stepped(optimizer)
    record = memory.record(model.modules(), 7)
    assert isinstance(record, Memory)
    return record


def test_parameters_gradients_and_both_moments_of_adam() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2, bias=False))
    held = stepped(model, torch.optim.Adam(model.parameters()))
    numel = 8 * 4 + 4 + 4 * 2
    assert held == Memory(7, FLOAT * numel, FLOAT * numel, FLOAT * 2 * numel + 3 * FLOAT)  # 3: the steps, a scalar each


def test_frozen_parameters_have_no_gradient_and_sgd_no_state() -> None:
    model = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 2, bias=False))
    model[0].requires_grad_(False)
    held = stepped(model, torch.optim.SGD(model[1].parameters(), lr=0.1))
    assert held == Memory(7, FLOAT * 40, FLOAT * 8, 0)


def test_shared_memory_counts_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
            self.other.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.other(self.one(x)))

    model = Tied()
    held = stepped(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    assert held == Memory(7, FLOAT * 64, FLOAT * 64, FLOAT * 64)


def test_copies_that_an_optimizer_steps_in_are_its_state() -> None:
    """As in mixed-precision optimizers and ZeRO: a flat copy in single precision, with its own gradient."""
    model = nn.Linear(8, 4, bias=False, dtype=torch.bfloat16)
    flat = nn.Parameter(model.weight.detach().float().flatten())
    flat.grad = torch.ones_like(flat)
    optimizer = torch.optim.SGD([flat], lr=0.1, momentum=0.9)
    optimizer.step()
    memory = MemoryBreakdown()
    memory.stepped(optimizer)
    assert memory.record(model.modules(), 0) == Memory(0, 2 * 32, FLOAT * 32, FLOAT * 2 * 32)


def test_several_optimizers_add_up() -> None:
    model = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 2, bias=False))
    both = [torch.optim.SGD(part.parameters(), lr=0.1, momentum=0.9) for part in model]
    assert stepped(model, *both).optimizer_bytes == FLOAT * 40


def test_of_a_dtensor_the_local_shard_counts() -> None:
    with rank_of(4):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("dp",))
        model = nn.Linear(8, 16, bias=False)
        model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Shard(0)]))
        model.weight.grad = torch.zeros_like(model.weight)
        assert MemoryBreakdown().record([model], 0) == Memory(0, FLOAT * 32, FLOAT * 32, 0)


def test_partition_of_an_emptied_zero_parameter_counts() -> None:
    model = nn.Linear(8, 16, bias=False)
    model.weight.ds_tensor = torch.zeros(32)  # type: ignore[attr-defined]
    model.weight.data = torch.empty(0)
    record = MemoryBreakdown().record([model], 0)
    assert isinstance(record, Memory) and record.parameter_bytes == FLOAT * 32


def test_on_meta_nothing_is_held() -> None:
    model = nn.Linear(8, 16, device="meta")
    assert MemoryBreakdown().record([model], 0) == Memory(0, 0, 0, 0)


def test_an_optimizer_that_is_gone_is_not_kept() -> None:
    memory = MemoryBreakdown()
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    memory.stepped(optimizer)
    met = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert met() is None
    record = memory.record([], 0)
    assert isinstance(record, Memory) and record.optimizer_bytes == 0


# ---- in a recorder ---------------------------------------------------------------------------------------------------


def test_memory_is_written_once(tmp_path: Path) -> None:
    model = nn.Linear(4, 4, bias=False)
    seen = record(tmp_path, lambda: train(model, torch.ones(1, 4), steps=5), warmup=1, timed=3)
    assert seen.one(Memory) == Memory(1, FLOAT * 16, FLOAT * 16, 0)


def test_without_a_timed_iteration_there_is_none(tmp_path: Path) -> None:
    model = nn.Linear(4, 4, bias=False)
    seen = record(tmp_path, lambda: train(model, torch.ones(1, 4), steps=2), timed=0, count=True)
    assert not seen.of(Memory)


def test_a_job_without_optimizer_holds_its_parameters(tmp_path: Path) -> None:
    model = nn.Linear(4, 4, bias=False)

    def job() -> None:
        with torch.no_grad():
            for _ in range(3):
                model(torch.ones(1, 4))

    assert record(tmp_path, job, timed=2).one(Memory) == Memory(0, FLOAT * 16, 0, 0)


def test_a_sparse_gradient_is_its_values_and_where_they_belong() -> None:
    model = nn.Embedding(10, 4, sparse=True)
    model(torch.tensor([1, 2, 2])).sum().backward()
    assert MemoryBreakdown().record([model], 0) == Memory(0, FLOAT * 40, 3 * (FLOAT * 4 + 8), 0)


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc])
def test_a_sparse_parameter_is_what_it_stores(layout: torch.layout) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of beta features
        model = nn.ParameterList([nn.Parameter(torch.eye(8).to_sparse(layout=layout))])
    assert MemoryBreakdown().record([model], 0) == Memory(0, 8 * FLOAT + (8 + 9) * 8, 0, 0)


def test_unmeasurable_memory_is_named(tmp_path: Path) -> None:
    class Odd(torch.Tensor):
        def __tensor_flatten__(self) -> tuple[list[str], None]:
            raise RuntimeError("odd tensors have no parts")

    model = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["odd"] = torch.ones(2).as_subclass(Odd)

    def job() -> None:
        for _ in range(4):
            model(torch.ones(2, 8)).sum().backward()
            optimizer.step()

    seen = record(tmp_path, job, count=False, timed=2)
    assert not seen.of(Error) and not seen.of(Memory)
    assert seen.one(MemoryUnknown).reason == "RuntimeError: odd tensors have no parts"
    assert seen.of(Step)
