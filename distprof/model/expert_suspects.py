"""Finds modules that may be MoE layers, by a name or by a config, but in which no experts are understood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from distprof.frameworks.expert_blocks import candidates
from distprof.frameworks.expert_finder import find_experts
from distprof.frameworks.module_view import ModelView, unwrapped
from distprof.frameworks.moe_names import config_smell, holds_experts_by_name, is_layer_class, names_router
from distprof.model.moe_layers import MoeLayer
from distprof.module_walk import class_name, every_module, modules_of
from distprof.records import ModuleRow, Suspect

#: Models keep their config in one of their upper modules: below so many levels no config is read.
_CONFIG_DEPTH = 4
_MAX_SUSPECTS = 1_000


def find_suspects(
    module: nn.Module, first_row: int, rows: Sequence[ModuleRow], layers: Sequence[MoeLayer]
) -> Iterator[Suspect]:
    """Yields the suspects among ``module`` and all below it, whose rows begin at ``first_row``.

    Nothing in one of the ``layers`` is a suspect, but for an expert that is a MoE layer, nor is a module that holds a
    layer.  A config is one only for a model without layers and without other suspects.
    """
    modules = dict(zip(range(first_row, len(rows)), modules_of(module), strict=False))
    view = ModelView(module)
    found = [
        *_by_name(modules, rows, {layer.row for layer in layers}, view),
        *_experts_with_experts(modules, layers, rows, view),
    ]
    if found or layers:
        yield from found[:_MAX_SUSPECTS]
        return
    for row, one in modules.items():
        said = config_smell(unwrapped(one)) if rows[row].depth <= rows[first_row].depth + _CONFIG_DEPTH else ""
        if said and rows[row].total_params:
            yield Suspect(rows[row].name or rows[row].class_name, row, said, by_config=True)
            return


def _by_name(
    modules: dict[int, nn.Module], rows: Sequence[ModuleRow], layers: set[int], view: ModelView
) -> Iterator[Suspect]:
    holding = {above for layer in layers for above in _above(layer, rows)}
    done = set(layers)  # layers, suspects, and all below them
    for row, module in modules.items():
        if rows[row].parent in done:
            done.add(row)
        elif row in done or row in holding or not rows[row].total_params:
            continue
        elif _is_suspect(rows[row].name.rpartition(".")[2], unwrapped(module), view):
            done.add(row)
            why = f"its class is {class_name(unwrapped(module))}"
            yield Suspect(rows[row].name or rows[row].class_name, row, why)


def _experts_with_experts(
    modules: dict[int, nn.Module], layers: Sequence[MoeLayer], rows: Sequence[ModuleRow], view: ModelView
) -> Iterator[Suspect]:
    """Yields the first expert of each layer whose experts are MoE layers: their parts work on a part of the tokens."""
    for layer in layers:
        expert = modules.get(layer.expert_rows[0]) if layer.expert_rows else None
        if expert is not None and any(find_experts(unwrapped(one), view) is not None for one in every_module(expert)):
            row = layer.expert_rows[0]
            yield Suspect(rows[row].name, row, "it is an expert that has experts")


def _is_suspect(name: str, module: nn.Module, view: ModelView) -> bool:
    """Whether a module is named after experts; a class is often named after its whole model, and needs more, as does a
    module with a router.
    """
    if holds_experts_by_name(name, module):
        return True
    children = [(child, one) for child, one in module._modules.items() if one is not None]
    if not is_layer_class(module):
        is_routing = any(child.lower().endswith("router") for child, _ in children)
        return is_routing and any(blocks.whole > 1 for blocks, _ in candidates(module, view))
    routers = (names_router(child, one) for child, one in children)
    return any(routers) or any(blocks.whole > 1 for blocks, _ in candidates(module, view))


def _above(row: int, rows: Sequence[ModuleRow]) -> Iterator[int]:
    while row >= 0:
        yield row
        row = rows[row].parent
