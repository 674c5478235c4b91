"""Mixtral on two ranks, in every way in which its experts may be wrapped or split; hooks on its routers count."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel

transformers: Any = importlib.import_module("transformers")
modeling: Any = importlib.import_module("transformers.models.mixtral.modeling_mixtral")

STEPS = 3
LAYERS, EXPERTS = 2, 4
Truth = tuple[int, list[list[int]]]  # parameters, and by layer the tokens of each expert in a step of all ranks


def mixtral() -> Any:
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=EXPERTS,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class Counter:
    """Counts what the routers of a model choose in a forward."""

    def __init__(self, model: Any) -> None:
        self.counts = torch.zeros(LAYERS, EXPERTS, dtype=torch.int64)
        for number, layer in enumerate(model.model.layers):
            layer.mlp.gate.register_forward_hook(partial(self._count, number))

    def _count(self, number: int, module: nn.Module, given: Any, output: tuple[Tensor, ...]) -> None:
        if torch._C._current_graph_task_id() == -1:  # no recomputation
            self.counts[number] = torch.bincount(output[2].reshape(-1), minlength=EXPERTS)

    def total(self, ranks: int) -> list[list[int]]:
        """Returns the counts of the last forward, over all ranks, of which ``ranks`` saw the same tokens."""
        dist.all_reduce(self.counts)
        return [[count // ranks for count in layer] for layer in self.counts.tolist()]


def train(model: Any, step: Callable[[Tensor], None], *, same: bool = False) -> None:
    torch.manual_seed(0 if same else dist.get_rank())
    ids = torch.randint(0, 64, (2, 9))
    for _ in range(STEPS):
        step(model(input_ids=ids, labels=ids).loss)


def by_optimizer(model: nn.Module) -> Callable[[Tensor], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, foreach=False)

    def step(loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def run(wrap: Callable[[Any], Any]) -> Truth:
    model = mixtral()
    whole, counter = size(model), Counter(model)
    model = wrap(model)
    train(model, by_optimizer(model))
    return whole, counter.total(1)


def fsdp1(model: Any, *, use_orig_params: bool) -> Any:
    policy = ModuleWrapPolicy({modeling.MixtralDecoderLayer})
    device = torch.device("cpu")
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=use_orig_params, device_id=device)


def checkpointed(model: Any) -> Any:
    for layer in model.model.layers:
        layer.mlp.experts = checkpoint_wrapper(layer.mlp.experts)
    return DistributedDataParallel(model)


def compiled(model: Any) -> Any:
    for layer in model.model.layers:
        layer.mlp.experts = torch.compile(layer.mlp.experts, backend="eager")
    return DistributedDataParallel(model)


def split() -> Truth:
    """Splits each expert by transformers' own plan; both ranks see the same tokens."""
    whole = size(mixtral())
    with tempfile.TemporaryDirectory() as own:
        folders = [own]
        dist.broadcast_object_list(folders)  # the first rank saves
        if dist.get_rank() == 0:
            mixtral().save_pretrained(folders[0])
        dist.barrier()
        plan = transformers.distributed.DistributedConfig(tp_size=2)
        model = transformers.AutoModelForCausalLM.from_pretrained(folders[0], distributed_config=plan)
        dist.barrier()
    counter = Counter(model)
    model.train()
    train(model, by_optimizer(model), same=True)
    return whole, counter.total(2)


SCENARIOS: dict[str, Callable[[], Truth]] = {
    "fsdp1": partial(run, partial(fsdp1, use_orig_params=False)),
    "fsdp1_orig": partial(run, partial(fsdp1, use_orig_params=True)),
    "tp": split,
    "checkpointed_experts": partial(run, checkpointed),
    "compiled": partial(run, compiled),
}
