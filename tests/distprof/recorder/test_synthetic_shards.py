"""Compares a synthetic shard with one that a recorder wrote: kinds of records, fields, and rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.examples import EXAMPLES
from support.recording import Seen, record
from support.synthetic import Job, rank_records, shard_of
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from distprof.api import set_topology
from distprof.clock import SystemClock
from distprof.records import (
    AXES,
    PHASES,
    Counts,
    End,
    ExpertLayers,
    ExpertLoad,
    Memory,
    Parameter,
    Parameters,
    Plan,
    Step,
    Topology,
)
from distprof.topology.declared import declare

WARMUP, TIMED, MICRO_BATCHES, BATCH = 1, 2, 2, 8

#: Records and fields that only a recorder writes; tests of their merge make them themselves.
RECORDED_ONLY = {
    *("ExpertRouting", "LayerRouting", "Collectives", "CollectiveWindow", "Timeline", "Pauses", "Group", "Mesh"),
    *("WarmupStep", "RouterFigures", "LayerCalls", "ExpertLoad.calls"),
    *("Topology.groups", "Topology.meshes", "Topology.sources", "Topology.notes"),
    *("Header.launch", "Header.launched_ns", "Header.clock_domain", "Counts.compiled"),
    *("Step.processor_wait_ns", "Step.processor_wait_seen"),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The shard of one rank that trains a small GPT with a mixture of experts, in DDP."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        dist.init_process_group("gloo", rank=0, world_size=1, store=HashStore())
        try:
            run = tmp_path_factory.mktemp("run")
            return record(run, _train, clock=SystemClock(), warmup=WARMUP, count=True, timed=TIMED)
        finally:
            declare(None)
            dist.destroy_process_group()


def _train() -> None:
    """Trains with a tied head, gradient accumulation, a checkpointed module and an op without a formula."""
    from moe_model import GPT, Shape

    set_topology(dp=1)
    torch.manual_seed(0)
    gpt = GPT(Shape(dim=32, layers=2, heads=4, sequence=16, experts=4))
    gpt.head.weight = gpt.embed.weight
    attention: Any = gpt.blocks[0].attn
    attention.forward = partial(checkpoint, attention.forward, use_reentrant=False)
    model = nn.parallel.DistributedDataParallel(gpt)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    tokens = torch.randint(512, ((WARMUP + 1 + TIMED + 1) * MICRO_BATCHES * BATCH, 16))
    for number, (batch,) in enumerate(DataLoader(TensorDataset(tokens), batch_size=BATCH), 1):
        loss = model(batch, batch)
        torch.matrix_exp(loss.detach().view(1, 1))
        loss.backward()
        if number % MICRO_BATCHES == 0:
            optimizer.step()
            optimizer.zero_grad()


@pytest.fixture(scope="module")
def synthetic() -> Seen:
    return Seen(shard_of(rank_records(Job(dp=1, micro_batches=MICRO_BATCHES, batch=BATCH, steps=TIMED), 0)))


def test_kinds_of_records(recorded: Seen, synthetic: Seen) -> None:
    ours, real = ({type(one).__name__ for one in shard.shard.records} for shard in (synthetic, recorded))
    assert ours == real - RECORDED_ONLY


def test_filled_fields(recorded: Seen, synthetic: Seen) -> None:
    ours, real = (set(_filled_fields(shard.shard.records)) for shard in (synthetic, recorded))
    assert ours == {name for name in real if not {name, name.partition(".")[0]} & RECORDED_ONLY}


def _filled_fields(values: Iterable[Any]) -> Iterator[str]:
    """Yields ``Class.field`` for each field with another value than zero or empty, in records and inside them."""
    for value in values:
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                content = getattr(value, field.name)
                if np.any(content) if isinstance(content, np.ndarray) else content:
                    yield f"{type(value).__name__}.{field.name}"
                if isinstance(content, tuple):
                    yield from _filled_fields(content)


def _iterations(shard: Seen) -> list[Counts | Step]:
    """Returns the records of the counted and the timed iterations."""
    return [*shard.of(Counts), *shard.of(Step)]


def records_are_in_order(shard: Seen) -> None:
    assert shard.kinds[:2] == ["header", "plan"] and shard.kinds[-1] == "end"
    assert shard.kinds.index("tree") < shard.kinds.index("parameters") < shard.kinds.index("counts")


def iterations_are_those_of_the_plan(shard: Seen) -> None:
    plan = shard.one(Plan)
    numbers = [one.iteration for one in _iterations(shard)]
    assert numbers == list(range(plan.start, plan.start + plan.counted + plan.settling + plan.timed))
    assert shard.one(End) == End("window complete", numbers[-1] + 1)
    assert [load.iteration for load in shard.of(ExpertLoad)] == [step.iteration for step in shard.of(Step)]
    assert shard.one(Memory).iteration == shard.of(Step)[0].iteration


def parameters_belong_to_their_rows(shard: Seen) -> None:
    rows, parameters = shard.rows, _parameters(shard)
    for number, row in enumerate(rows):
        own = {one.name: one.rank_numel for one in parameters if one.row == number}
        inside = [one for one in parameters if number in _ancestors(shard, one.row)]
        assert row.own_params == sum(own.values())
        assert row.total_params == sum({one.tied_to or one.name: one.rank_numel for one in inside}.values())
    assert all(one.name == f"{rows[one.row].name}.{one.name.rpartition('.')[2]}" for one in parameters)


def only_called_modules_have_work_and_time(shard: Seen) -> None:
    for one in _iterations(shard):
        arrays = [value for value in vars(one).values() if isinstance(value, np.ndarray) and len(value)]
        assert {len(array) for array in arrays} == {len(shard.rows)}
        assert all(not array[one.calls == 0].any() for array in arrays)
        assert set(one.calls.tolist()) == {0, one.micro_batches}


def batches_add_up(shard: Seen) -> None:
    for one in _iterations(shard):
        assert (one.micro_batches, one.batch_size, one.samples) == (MICRO_BATCHES, BATCH, MICRO_BATCHES * BATCH)
        assert one.batch_found == "dimension 0 of the first tensor that the model is given"


def work_adds_up(shard: Seen) -> None:
    counts = shard.one(Counts)
    for kind in ("forward", "backward", "recompute"):
        macs, flops = getattr(counts, f"{kind}_macs"), getattr(counts, f"{kind}_flops")
        assert len(macs) == len(flops) and (flops >= 2 * macs).all()
    model_macs = sum(int(array.sum()) for array in (counts.forward_macs, counts.backward_macs))
    model_macs += sum(amount for name, amount in counts.outside.items() if name.endswith("_macs"))
    assert sum(work.model_macs for work in counts.device_work) == model_macs
    executed = sum(work.executed_macs for work in counts.device_work)
    assert executed == model_macs + int(counts.recompute_macs.sum())
    assert counts.uncounted.keys() == counts.uncounted_work.keys()


def times_add_up(shard: Seen) -> None:
    for step in shard.of(Step):
        assert set(step.phases_ns) == set(PHASES)
        assert sum(step.phases_ns.values()) == step.duration_ns
        assert 0 < step.forward_ns.sum() <= step.phases_ns["forward"]
        assert 0 < step.backward_ns.sum() <= step.phases_ns["backward"]
    assert all(
        later.start_wall_ns >= earlier.start_wall_ns + earlier.duration_ns
        for earlier, later in pairwise(shard.of(Step))
    )


def experts_have_their_tokens(shard: Seen) -> None:
    layers = shard.of(ExpertLayers)[-1].layers
    assert [layer.name for layer in layers] == [shard.rows[layer.row].name for layer in layers]
    hosted = sum(len(layer.local_experts) for layer in layers if layer.counted)
    assert all(len(load.tokens) == hosted and load.tokens.any() for load in shard.of(ExpertLoad))


def memory_is_that_of_the_parameters(shard: Seen) -> None:
    held = sum(one.local_numel * one.itemsize for one in _parameters(shard) if not one.tied_to)
    memory = shard.one(Memory)
    assert (memory.parameter_bytes, memory.gradient_bytes) == (held, held)
    assert memory.optimizer_bytes >= 2 * held  # Adam's


def axes_are_complete(shard: Seen) -> None:
    topology = shard.of(Topology)[-1]
    assert topology.source == "declared"
    assert {*AXES, "mp"} <= topology.sizes.keys() == topology.coordinates.keys()


def _ancestors(shard: Seen, row: int) -> set[int]:
    """Returns the row and all rows above it."""
    return {row} | _ancestors(shard, shard.rows[row].parent) if row >= 0 else set()


def _parameters(shard: Seen) -> list[Parameter]:
    return [one for found in shard.of(Parameters) for one in found.parameters]


RULES = (
    records_are_in_order,
    iterations_are_those_of_the_plan,
    parameters_belong_to_their_rows,
    only_called_modules_have_work_and_time,
    batches_add_up,
    work_adds_up,
    times_add_up,
    experts_have_their_tokens,
    memory_is_that_of_the_parameters,
    axes_are_complete,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_both_follow_the_rule(recorded: Seen, synthetic: Seen, rule: Callable[[Seen], None]) -> None:
    rule(recorded)
    rule(synthetic)
