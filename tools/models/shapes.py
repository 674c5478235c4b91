"""The models of the tables: models of known shape, with their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bert import bert, sentences
from gpt2 import gpt2
from t5 import t5, texts
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from vision import AlexNet, LeNet5, ResNet50, vit_b_16

Inputs = Mapping[str, Tensor]
SOFTMAX, BERT_LARGE = "LeNet-5 with its softmax", "BERT-Large"


@dataclass(frozen=True)
class Shape:
    """A model and its keyword arguments; it is counted on the meta device, where nothing runs."""

    title: str
    given: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]


def images(name: str, *shape: int) -> Callable[[], Inputs]:
    return lambda: {name: torch.zeros(shape)}


def tokens(batch: int, sequence: int) -> Callable[[], Inputs]:
    return lambda: {"input_ids": torch.zeros(batch, sequence, dtype=torch.long)}


def llama() -> nn.Module:
    """Returns a model of Llama-2-7B's shape, the defaults of its configuration."""
    model: nn.Module = LlamaForCausalLM(LlamaConfig(attn_implementation="eager"))
    return model


def mixtral(experts: str, **sizes: int) -> nn.Module:
    """Returns a model of Mixtral-8x7B's shape, or of other ``sizes``; ``experts`` is transformers' name for them."""
    model: nn.Module = MixtralForCausalLM(MixtralConfig(attn_implementation="eager", **sizes))
    return computing(model, experts)


def qwen3_moe(experts: str, **sizes: int) -> nn.Module:
    """Returns a model of Qwen3-30B-A3B's shape, or of other ``sizes``."""
    shape = {"num_hidden_layers": 48, "head_dim": 128, **sizes}
    model: nn.Module = Qwen3MoeForCausalLM(Qwen3MoeConfig(attn_implementation="eager", **shape))
    return computing(model, experts)


def computing(model: Any, experts: str) -> nn.Module:
    """Returns the model in bfloat16, for which grouped matmuls have a kernel on every device."""
    model.set_experts_implementation(experts)
    module: nn.Module = model.to(torch.bfloat16)
    return module


#: Attention is eager, as in DeepSpeed's own figures.
MODELS = (
    Shape("LeNet-5", "1024 x 1 x 32 x 32", LeNet5, images("images", 1024, 1, 32, 32)),
    Shape(SOFTMAX, "1024 x 1 x 32 x 32", lambda: LeNet5(softmax=True), images("images", 1024, 1, 32, 32)),
    Shape("AlexNet", "1 x 3 x 224 x 224", AlexNet, images("images", 1, 3, 224, 224)),
    Shape("ResNet-50 v1.5", "1 x 3 x 224 x 224", ResNet50, images("images", 1, 3, 224, 224)),
    Shape("ViT-B/16", "1 x 3 x 224 x 224", lambda: vit_b_16("eager"), images("pixel_values", 1, 3, 224, 224)),
    Shape("BERT-base", "1 x 128 tokens", lambda: bert("base", "eager"), lambda: sentences(1, 128)),
    Shape(BERT_LARGE, "80 x 128 tokens", lambda: bert("large", "eager"), lambda: sentences(80, 128)),
    Shape("GPT-2", "1 x 128 tokens", lambda: gpt2("small", "eager"), tokens(1, 128)),
    Shape("T5-small", "1 x 128 tokens, to 1 x 32", lambda: t5("small", "eager"), lambda: texts(1, 128, 32)),
    Shape("Llama-2-7B", "1 x 128 tokens", llama, tokens(1, 128)),
    Shape("Mixtral-8x7B", "1 x 128 tokens", lambda: mixtral("grouped_mm"), tokens(1, 128)),
    Shape("Qwen3-30B-A3B", "1 x 128 tokens", lambda: qwen3_moe("grouped_mm"), tokens(1, 128)),
)

_SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "vocab_size": 128,
}
EXPERTS = ("eager", "batched_mm", "grouped_mm")
#: Small enough to run: eager experts loop over those that got a token, which cannot be counted on the meta device.
MIXTURES: dict[str, Callable[[str], nn.Module]] = {
    "Mixtral": lambda how: mixtral(how, intermediate_size=128, num_local_experts=8, **_SMALL),
    "Qwen3-MoE": lambda how: qwen3_moe(how, moe_intermediate_size=32, num_experts=8, head_dim=16, **_SMALL),
}
