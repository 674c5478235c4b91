"""transformers and accelerate on four ranks: Mixtral under DDP and split by its own plans, the Trainer, accelerate."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

transformers: Any = importlib.import_module("transformers")
accelerate: Any = importlib.import_module("accelerate")

#: Parts that transformers imports when they are first asked for: here, once for all ranks.
_PARTS = [
    getattr(transformers, name)
    for name in ("AutoModelForCausalLM", "MixtralForCausalLM", "Qwen3MoeForCausalLM", "Trainer", "TrainingArguments")
]
if importlib.util.find_spec("deepspeed"):  # from_pretrained of a split model imports it where it is installed
    importlib.import_module("deepspeed")

STEPS = 3  # one is counted, in the second the ranks settle, and the third is used


def mixtral_config() -> Any:
    return transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=4,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
    )


def mixtral(**how: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_config(mixtral_config(), **how)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


IDS = torch.arange(16).view(2, 8)


def train(model: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, foreach=False)
    for _ in range(STEPS):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def ddp() -> int:
    model = mixtral()
    train(DistributedDataParallel(model))
    return size(model)


def tp_fsdp_ep() -> int:
    """Splits experts over all four ranks, and the rest over tp 2 x FSDP 2."""
    whole = size(mixtral())
    with tempfile.TemporaryDirectory() as own:
        folders = [own]
        dist.broadcast_object_list(folders)  # the first rank saves
        mixtral().save_pretrained(folders[0])
        dist.barrier()
        plan = transformers.distributed.DistributedConfig(tp_size=2, fsdp_size=2, ep_size=4)
        model = transformers.AutoModelForCausalLM.from_pretrained(folders[0], distributed_config=plan)
        dist.barrier()
    train(model)
    return whole


def trainer() -> int:
    model = mixtral()
    whole = size(model)
    data = [{"input_ids": IDS[0], "labels": IDS[0]}] * 16
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder, per_device_train_batch_size=2, max_steps=STEPS, use_cpu=True, report_to=[], save_strategy="no"
        )
        transformers.Trainer(model=model, args=arguments, train_dataset=data).train()
    return whole


def experts_by(family: str, way: str) -> int:
    """Runs experts by one of transformers' implementations, on 32 tokens of which none is for the last expert."""
    own = {"num_local_experts": 8, "moe_intermediate_size": 16, "head_dim": 4}
    config = getattr(transformers, f"{family}Config")(**{**mixtral_config().to_diff_dict(), **own})
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.set_experts_implementation(way)
    for layer in model.model.layers:
        with torch.no_grad():
            layer.mlp.gate.weight[:-1].abs_()
            layer.mlp.gate.weight[-1] = -9.0
        layer.post_attention_layernorm.register_forward_hook(lambda module, given, output: output.abs() + 1)
    ids = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(dist.get_rank()))
    for _ in range(STEPS):
        model(input_ids=ids, labels=ids).loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.0).step()
    return size(model)


def without_grouped_mm() -> int:
    """Runs experts by the op that transformers has where torch's grouped matmul cannot be used."""
    moe: Any = importlib.import_module("transformers.integrations.moe")
    before, moe._can_use_grouped_mm = moe._can_use_grouped_mm, lambda *_: False
    try:
        return experts_by("Mixtral", "grouped_mm")
    finally:
        moe._can_use_grouped_mm = before


def accelerator() -> int:
    prepare = accelerate.Accelerator(cpu=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    whole = size(model)
    model, optimizer = prepare.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    for _ in range(STEPS):
        prepare.backward(model(torch.ones(2, 8)).sum())
        optimizer.step()
    return whole


SCENARIOS: dict[str, Callable[[], int]] = {
    "ddp": ddp,
    "tp_fsdp_ep": tp_fsdp_ep,
    "trainer": trainer,
    "accelerator": accelerator,
    "eager": partial(experts_by, "Mixtral", "eager"),
    "grouped_mm": partial(experts_by, "Mixtral", "grouped_mm"),
    "grouped_mm_fallback": without_grouped_mm,
    "batched_mm": partial(experts_by, "Mixtral", "batched_mm"),
    "qwen3": partial(experts_by, "Qwen3Moe", "eager"),
}
