"""Mixtral on two ranks, in every way in which its experts may be wrapped or split; hooks on its routers count."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel

transformers: Any = importlib.import_module("transformers")
deepspeed: Any = importlib.import_module("deepspeed")
importlib.import_module("torch._inductor.compile_fx")  # DeepSpeed's first engine imports it: here, once for both ranks
peft: Any = importlib.import_module("peft") if importlib.util.find_spec("peft") else None
output_capturing: Any = importlib.import_module("transformers.utils.output_capturing")
modeling: Any = importlib.import_module("transformers.models.mixtral.modeling_mixtral")

STEPS = 3
LAYERS, EXPERTS = 2, 4
#: The second of two sequences ends with padding.
MASK = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
#: By layer the tokens of each expert in a step of all ranks, and those of them that are padding.
Counts = dict[str, list[list[int]]]
Truth = tuple[int, Counts]  # parameters, and counts


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
        self.counts = torch.zeros(2, LAYERS, EXPERTS, dtype=torch.int64)  # of all tokens, and of padding
        for number, layer in enumerate(model.model.layers):
            router = layer.mlp.gate if hasattr(layer.mlp, "gate") else layer.mlp.router
            router.register_forward_hook(partial(self._count, number))

    def _count(self, number: int, module: nn.Module, given: Any, output: tuple[Tensor, ...]) -> None:
        if torch._C._current_graph_task_id() == -1:  # no recomputation
            (ids,) = (one for one in output if one.dtype == torch.int64)
            chosen = torch.nn.functional.one_hot(ids.reshape(MASK.numel(), -1), EXPERTS).sum(1)
            self.counts[0, number] = chosen.sum(0)
            self.counts[1, number] = chosen[MASK.flatten() == 0].sum(0)

    def total(self, ranks: int) -> Counts:
        """Returns the counts of the last forward, over all ranks, of which ``ranks`` saw the same tokens."""
        dist.all_reduce(self.counts)
        tokens, padding = (self.counts // ranks).tolist()
        return {"tokens": tokens, "padding": padding}


def train(model: Any, step: Callable[[Tensor], None], *, same: bool = False) -> None:
    torch.manual_seed(0 if same else dist.get_rank())
    ids = torch.randint(0, 64, (2, 9))
    for _ in range(STEPS):
        step(model(input_ids=ids, attention_mask=MASK, labels=ids).loss)


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


def fsdp2(model: Any) -> Any:
    for layer in model.model.layers:
        fully_shard(layer.mlp.experts)
        fully_shard(layer)
    fully_shard(model)
    return model


def checkpointed(model: Any, part: str, impl: CheckpointImpl) -> Any:
    for layer in model.model.layers:
        owner, _, name = part.rpartition(".")
        holder = layer.get_submodule(owner)
        setattr(holder, name, checkpoint_wrapper(getattr(holder, name), checkpoint_impl=impl))
    return DistributedDataParallel(model)


def checkpointed_by_transformers(model: Any) -> Any:
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return DistributedDataParallel(model)


def compiled(model: Any) -> Any:
    for layer in model.model.layers:
        layer.mlp.experts = torch.compile(layer.mlp.experts, backend="eager")
    return DistributedDataParallel(model)


def split(*, same: bool, **sizes: int) -> Truth:
    """Splits the model by transformers' own plan; ``same``: both ranks see the same tokens."""
    whole = size(mixtral())
    with tempfile.TemporaryDirectory() as own:
        folders = [own]
        dist.broadcast_object_list(folders)  # the first rank saves
        if dist.get_rank() == 0:
            mixtral().save_pretrained(folders[0])
        dist.barrier()
        plan = transformers.distributed.DistributedConfig(**sizes)
        model = transformers.AutoModelForCausalLM.from_pretrained(folders[0], distributed_config=plan)
        dist.barrier()
    counter = Counter(model)
    model.train()
    train(model, by_optimizer(model), same=same)
    return whole, counter.total(2 if same else 1)


def adapted() -> Truth:
    """Trains LoRA adapters of the experts' own weights."""
    model = mixtral()
    counter = Counter(model)
    how = peft.LoraConfig(r=2, target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"])
    adapters = peft.get_peft_model(model, how)
    train(DistributedDataParallel(adapters), by_optimizer(adapters))
    return size(adapters), counter.total(1)


def by_engine(stage: int, **more: Any) -> Truth:
    model = mixtral()
    whole = size(model)
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "optimizer": {"type": "Adam", "params": {"lr": 0.0, "torch_adam": True}},
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        **more,
    }
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    counter = Counter(engine.module)

    def step(loss: Tensor) -> None:
        engine.backward(loss)
        engine.step()

    train(engine, step)
    return whole, counter.total(1)


class Registry(dict[str, Any]):
    """transformers' registry of recorded outputs as DeepSpeed 0.19 asks it: by a class's name, with a default."""

    def __setitem__(self, model: Any, outputs: Any) -> None:
        super().__setitem__(model if isinstance(model, str) else str(type(model)), outputs)

    def get(self, model: Any, default: Any = None) -> Any:
        found = super().get(model if isinstance(model, str) else str(type(model)))
        return found or ({} if default is None else default)


def auto_ep() -> Truth:
    """Lets DeepSpeed replace the layers by its own, with two experts on each rank."""
    output_capturing._CAN_RECORD_REGISTRY = Registry(output_capturing._CAN_RECORD_REGISTRY)
    return by_engine(2, expert_parallel={"enabled": True, "autoep_size": 2, "preset_model": "mixtral"})


def destroy_groups() -> None:
    """Destroys all groups, DeepSpeed's own handle too, so that the next scenario can create new ones."""
    comm: Any = importlib.import_module("deepspeed.comm.comm")
    if comm.cdb is None:
        dist.destroy_process_group()
    else:
        comm.destroy_process_group()
    comm.cdb = None


SCENARIOS: dict[str, Callable[[], Truth]] = {
    "fsdp1": partial(run, partial(fsdp1, use_orig_params=False)),
    "fsdp1_orig": partial(run, partial(fsdp1, use_orig_params=True)),
    "fsdp2": partial(run, fsdp2),
    "tp": partial(split, same=True, tp_size=2),
    "ep": partial(split, same=False, fsdp_size=2, ep_size=2),
    "tp_ep": partial(split, same=True, tp_size=2, ep_size=2),
    "checkpointed_experts": partial(run, partial(checkpointed, part="mlp.experts", impl=CheckpointImpl.NO_REENTRANT)),
    "checkpointed_layers": partial(run, partial(checkpointed, part="mlp", impl=CheckpointImpl.REENTRANT)),
    "checkpointed_by_transformers": partial(run, checkpointed_by_transformers),
    "compiled": partial(run, compiled),
    **({"peft": adapted} if peft else {}),
    **{f"zero{stage}": partial(by_engine, stage) for stage in range(4)},
    "auto_ep": auto_ep,
}
