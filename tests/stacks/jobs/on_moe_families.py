"""The MoE layers of families of transformers, on two ranks: each with tiny sizes, all in one model and one run.

``ExpertRows`` counts independently: the rows that meet each expert's weights in a product, by the storage of the
weights.  It sees nothing of modules, routers or hooks.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import os
import pkgutil
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

transformers: Any = importlib.import_module("transformers")
models: Any = importlib.import_module("transformers.models")

EXPERTS, WIDTH, STEPS = 8, 32, 3
#: Attributes of configs, and the tiny values that they get.
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "ffn_hidden_size", "attention_hidden_size"), WIDTH),
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_top_k", "moe_k", "top_k", "moe_topk", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_groups", "topk_groups"), 1),
    **dict.fromkeys(("num_shared_experts", "n_shared_experts", "moe_num_shared_experts"), 1),
    **{"num_key_value_heads": 2, "num_attention_heads": 4, "zero_expert_num": 0, "expert_capacity": 64, "head_dim": 8},
    **{"moe_router_jitter_noise": 0.0, "enable_moe_block": True, "hidden_size_per_layer_input": 0, "mlp_ratio": 2},
    "part_features": 8,
}  # fmt: skip


#: Arguments of layers beside the config.
ARGUMENTS = {"layer_idx": 0, "intermediate_size": 16, "ffn_dim": 16}
#: Arguments of a layer's forward beside x, [batch, length, WIDTH].
INPUTS: dict[str, Callable[[Any, Tensor], Any]] = {
    "input_ids": lambda layer, x: torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2]),
    "indices": lambda layer, x: torch.arange(len(x)),
    "position_embeddings": lambda layer, x: torch.ones(2, *x.shape[:2], layer.self_attn.head_dim),  # cos, sin
    "shared_kv_states": lambda layer, x: {},
}
#: The families that the tests take; ``FAMILIES=all`` takes every family.
SOME = (
    *("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "dbrx", "llama4", "jetmoe", "switch_transformers", "nllb_moe"),
    *("doge", "longcat_flash", "phimoe", "granitemoe", "aria"),
)
_LAYER = re.compile(r"= \w*(?<!Shared)(Experts|NaiveMoe)\(|nn\.Embedding\(self\.num_experts")


def families() -> Iterator[tuple[str, str]]:
    """Yields (family, class of a MoE layer): the classes that make a module whose class is named after experts."""
    every = [one.name for one in pkgutil.iter_modules(models.__path__)]
    for family in every if os.environ.get("FAMILIES") == "all" else SOME:
        file = Path(models.__path__[0]) / family / f"modeling_{family}.py"
        source = file.read_text(encoding="utf-8") if file.exists() else ""
        if _LAYER.search(source):
            for node in ast.parse(source).body:
                if isinstance(node, ast.ClassDef) and _LAYER.search(ast.get_source_segment(source, node) or ""):
                    yield family, node.name


def build(family: str, name: str) -> nn.Module:
    """Makes a layer with the first of its family's configs that fits; raises if none does."""
    layer_class = getattr(importlib.import_module(f"transformers.models.{family}.modeling_{family}"), name)
    settings = importlib.import_module(f"transformers.models.{family}.configuration_{family}")
    wanted = inspect.signature(layer_class).parameters
    more = {name: value for name, value in ARGUMENTS.items() if name in wanted}
    why: Exception = LookupError("no config")
    for config_class in (one for one in vars(settings).values() if isinstance(one, type)):
        if issubclass(config_class, transformers.PreTrainedConfig) and config_class.__module__ == settings.__name__:
            try:
                layer = made(layer_class, shrunk(config_class()), more)
                why_not = works(initialized(layer))
            except Exception as error:
                why = error
                continue
            if not why_not:
                return layer
            why = RuntimeError(why_not)
    raise why


def made(layer_class: Any, config: Any, more: dict[str, Any]) -> nn.Module:
    """Makes a layer; its config gets a size that it lacks, as models get them from checkpoints."""
    try:
        layer: nn.Module = layer_class(config, **more)
    except AttributeError as error:
        if error.name not in SIZES or hasattr(config, error.name):
            raise
        setattr(config, error.name, SIZES[error.name])
        return made(layer_class, config, more)
    return layer


def initialized(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def shrunk(config: Any) -> Any:
    for attribute, value in SIZES.items():
        with contextlib.suppress(Exception):  # an attribute may differ from layer to layer
            if isinstance(getattr(config, attribute, ""), (int, float, type(None))):
                setattr(config, attribute, value)
    config._experts_implementation = "eager"
    for attribute in ("ffn_config", "text_config"):
        if getattr(config, attribute, None) is not None:
            shrunk(getattr(config, attribute))
    return config


class Family(nn.Module):
    """A layer after a module of its own."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.before, self.layer = nn.Linear(WIDTH, WIDTH), layer

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = self.layer
        if hasattr(layer, "reduce"):  # JetMoE's attention calls a layer in two parts
            mapped, _, order = layer.map(self.before(x))
            part: Tensor = layer.reduce(mapped, order)
            return part
        wanted = inspect.signature(layer.forward).parameters
        y = layer(self.before(x), **{name: make(layer, x) for name, make in INPUTS.items() if name in wanted})
        while not isinstance(y, Tensor):
            y = y[0]
        return y


class Families(nn.Module):
    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.families = nn.ModuleDict({name: Family(layer) for name, layer in layers.items()})

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([family(x).float().square().mean() for family in self.families.values()]).sum()


def works(layer: nn.Module) -> str:
    """Returns why a layer cannot be run by itself; empty where it can."""
    try:
        Family(layer)(torch.randn(1, 4, WIDTH)).float().sum().backward()
        layer.zero_grad()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return ""


@dataclass(frozen=True)
class Held:
    """What a storage holds: the weights of ``experts`` of a layer, end to end; the first of them is ``first``."""

    layer: str
    parameter: str
    experts: int
    first: int
    numel: int

    def expert(self, part: Tensor) -> int:
        """Returns the expert that a view of the storage begins with."""
        return self.first + part.storage_offset() // (self.numel // self.experts)


class ExpertRows(TorchDispatchMode):
    def __init__(self, weights: dict[int, Held]) -> None:
        """``weights`` maps the address of a storage to what it holds."""
        super().__init__()
        self._weights = weights
        self._rows: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)

    def by_layer(self) -> dict[str, list[int]]:
        """Returns the rows of each expert; of several weights of an expert, those of the one that met most."""
        found: dict[str, list[int]] = {}
        sizes = {held.layer: 0 for held in self._weights.values()}
        for held in self._weights.values():
            sizes[held.layer] = max(sizes[held.layer], held.first + held.experts)
        for (layer, _), rows in self._rows.items():
            counts = [rows[expert] for expert in range(sizes[layer])]
            found[layer] = max(found.get(layer, counts), counts, key=sum)
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch._C._current_graph_task_id() == -1:  # no backward, and no recomputation
            self._count(func._schema.name, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _count(self, op: str, args: Any, kwargs: Any) -> None:
        tensors = [value for value in args if isinstance(value, Tensor)]
        for place, tensor in enumerate(tensors):
            held = self._weights.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
            if held is not None:
                self._add(held, op, tensors, place, kwargs)

    def _add(self, held: Held, op: str, tensors: list[Tensor], place: int, kwargs: Any) -> None:
        rows, weight = self._rows[held.layer, held.parameter], tensors[place]
        product = op.partition("::")[2] in ("mm", "addmm", "bmm", "baddbmm")
        if not (product or "grouped_mm" in op) or (product and place < len(tensors) - 2):
            return  # a view, or a bias
        other = tensors[-1] if weight is not tensors[-1] else tensors[-2]
        dimension = -2 if weight is tensors[-1] else -1
        if product and weight.dim() == 2:
            rows[held.expert(weight)] += other.shape[dimension]
        elif product and weight.shape[0] == held.experts:
            for expert in range(held.experts):
                rows[held.first + expert] += other.shape[dimension]
        elif "grouped_mm" in op:
            ends = next(value for value in (*tensors[2:], *kwargs.values()) if isinstance(value, Tensor))
            for expert, count in enumerate(torch.diff(ends, prepend=ends.new_zeros(1)).tolist()):
                rows[held.first + expert] += count


def weights_of(model: nn.Module, layers: dict[str, int]) -> dict[int, Held]:
    """Maps the storages of experts' weights below the modules ``layers``, of which each has so many experts.

    Weights are experts' if they are stacked along their first dimension, if they lie below each other in a module named
    ``experts``, or if they belong to one of the modules of a list or dict of that name.
    """
    found: dict[int, Held] = {}
    for layer, experts in layers.items():
        for name, parameter in model.get_submodule(layer).named_parameters():
            path = name.split(".")
            inside = [
                place for place, part in enumerate(path[:-1]) if part.endswith("experts") and "shared" not in part
            ]
            numbered = path[inside[0] + 1].rpartition("_")[2] if inside and len(path) > inside[0] + 1 else ""
            if parameter.dim() == 3 and parameter.shape[0] == experts and "shared" not in name:
                held = Held(layer, name, experts, 0, parameter.numel())
            elif inside and numbered.isdecimal() and parameter.dim() == 2:
                rest = ".".join(path[inside[0] + 2 :])
                held = Held(layer, rest, 1, int(numbered), parameter.numel())
            elif inside and parameter.dim() == 2 and parameter.shape[0] % experts == 0 and not name.endswith("bias"):
                held = Held(layer, name, experts, 0, parameter.numel())
            else:
                continue
            found[parameter.untyped_storage().data_ptr()] = held
    return found


def number_in(layer: Any) -> int:
    """Returns the number of experts; a config with settings of each layer does not take that of ``SIZES``."""
    number: int = getattr(getattr(layer, "experts", None), "num_experts", EXPERTS)
    return number


def build_all() -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Returns the layers that run by themselves, and why others do not."""
    made: dict[str, nn.Module] = {}
    left_out: dict[str, str] = {}
    for family, name in families():
        try:
            made[f"{family}_{name}"] = build(family, name)
        except Exception as error:
            left_out[f"{family}_{name}"] = f"{type(error).__name__}: {error}"[:200]
    return made, left_out


torch.manual_seed(0)
MADE, LEFT_OUT = build_all()  # once, before ranks are forked


def all_families() -> tuple[int, Any]:
    model = Families(MADE)
    owned = weights_of(model, {f"families.{name}.layer": number_in(layer) for name, layer in MADE.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, foreach=False)
    torch.manual_seed(dist.get_rank())
    for _ in range(STEPS):
        with ExpertRows(owned) as rows:
            loss = model(torch.randn(2, 9, WIDTH))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, rows.by_layer())
    added = {layer: torch.tensor([one[layer] for one in every]).sum(0).tolist() for layer in every[0]}
    whole = sum(parameter.numel() for parameter in model.parameters())
    return whole, {"rows": added, "made": [*MADE], "left out": LEFT_OUT}


SCENARIOS: dict[str, Callable[[], Any]] = {"families": all_families}
