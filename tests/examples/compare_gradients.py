"""A job of four ranks that compares the distributed MoE example with the whole model: parameters, loss and gradients.

Run by test_train_moe.py.  Ranks are forks of one process, which has imported torch for all.  Gradients, not losses
after some steps: AdamW hides a gradient that is too large by a factor.
"""

from __future__ import annotations

import gc
import itertools
import tempfile

import torch
import torch.distributed as dist
import train_moe
from moe_model import GPT, Shape, moe_layers
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import start_processes
from torch.utils.data import default_collate

SHAPE = Shape(dim=32, layers=4, heads=4, sequence=16, experts=8)
RANKS = 4
BATCH = 8
CROWD = 50.0  # a bias that decides the router's choice


def build(crowded: bool) -> GPT:
    torch.manual_seed(1)
    model = GPT(SHAPE)
    for moe in moe_layers(model).values():
        moe.router.bias[:2] = CROWD if crowded else 0.0
    return model


def batch_of(first: int, step: int) -> list[Tensor]:
    data = train_moe.Sequences(BATCH, SHAPE.sequence)
    return list(default_collate([data[i] for i in range(first, BATCH, step)]))


def global_name(name: str, first_expert: int) -> str:
    """``experts.1`` of the second ep rank is the whole model's ``experts.3``."""
    parts = name.split(".")
    if "experts" in parts:
        place = parts.index("experts") + 1
        parts[place] = str(int(parts[place]) + first_expert)
    return ".".join(parts)


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def compare(tp: int, ep: int, crowded: bool) -> None:
    meshes = train_moe.make_meshes(torch.device("cpu"), tp, ep)
    whole, shared = build(crowded), build(crowded)
    train_moe.parallelize(shared, meshes)
    dp = meshes.dense["dp"]
    first_expert = meshes.experts["ep"].get_local_rank() * SHAPE.experts // ep
    own, expected = dict(shared.named_parameters()), dict(whole.named_parameters())
    for name, parameter in own.items():
        assert torch.equal(full(parameter), expected[global_name(name, first_expert)]), name

    whole_loss = whole(*batch_of(0, 1))
    whole_loss.backward()
    loss = shared(*batch_of(dp.get_local_rank(), dp.size()))
    loss.backward()
    mean = loss.detach().clone()
    dist.all_reduce(mean, group=dp.get_group())
    torch.testing.assert_close(mean / dp.size(), whole_loss.detach(), rtol=1e-5, atol=0)
    for name, parameter in own.items():
        where = global_name(name, first_expert)
        assert torch.allclose(full(gradient(parameter)), gradient(expected[where]), rtol=1e-3, atol=1e-6), where
    assert crowded == any(not gradient(parameter).any() for parameter in expected.values())


def main(rank: int, meeting: str) -> None:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)
    for (tp, ep), crowded in itertools.product(((2, 4), (2, 2), (4, 1)), (False, True)):
        compare(tp, ep, crowded)
        if rank == 0:
            print(f"agreed: tp {tp} ep {ep} crowded {crowded}", flush=True)
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        start_processes(main, (f"file://{folder}/meeting",), nprocs=RANKS, start_method="fork")
