"""Names that tell of experts: of modules, of their classes, of attributes and of configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from distprof.frameworks.module_view import package_of

#: Attributes that may hold the global number of experts, the most trusted first.
_NUM_EXPERTS = (
    *("num_experts", "n_experts", "num_global_experts", "n_routed_experts", "num_routed_experts"),
    *("num_local_experts", "moe_num_experts", "num_moe_experts", "n_experts_total"),
)
#: Attributes that hold the number of experts a token.
_TOP_K = (
    *("top_k", "topk", "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_top_k"),
    *("num_selected_experts", "num_activated_experts", "n_activated_experts", "top_k_experts", "moe_topk"),
    *("num_selects", "top_n", "k"),
)
_ROUTER_NAMES = frozenset({"gate", "router", "wg", "w_gate", "gating", "switch", "router_gate", "gate_network"})
_ROUTER_CLASS = re.compile(r"(router|gate|gating)(v\d+)?$", re.IGNORECASE)
#: A router's class that states its k: Top1Router, TopTwoGate.
_STATED_K = re.compile(r"top_?(\d{1,2}|one|two)(router|gat)", re.IGNORECASE)
_WORDS = {"one": 1, "two": 2}
#: The class of a layer, or of what holds experts: ``MixtralExperts``, ``DogeCDMoE``, ``SparseMLP``; no other class of a
#: model whose name has "Moe" in it.
_LAYER_CLASS = re.compile(
    r"(experts?|moe|mixtureofexperts)(v\d+)?(_?(layer|block|mlp|ffn|feedforward|module))?$|sparsemlp$", re.IGNORECASE
)
_DROPS = re.compile(r"capacity|drop_?(tokens?|policy|mask)|dropped", re.IGNORECASE)
_EXPERTS_CLASS = re.compile(r"Experts$")
_EXPERT_NAME = re.compile(r"(^|_)(experts?|moe)(_|\d|$)", re.IGNORECASE)


def is_router_name(name: str) -> bool:
    """Whether a child of this name is a router, whatever its class is."""
    return name.lower() in _ROUTER_NAMES or name.lower().endswith("router")


def names_router(name: str, module: nn.Module) -> bool:
    """Whether a child's name, or its class, is that of a router."""
    return is_router_name(name) or (not _is_torchs(module) and bool(_ROUTER_CLASS.search(type(module).__name__)))


def names_experts(name: str, module: nn.Module) -> bool:
    """Whether a child's name, or its class, is that of experts; experts for every token are none."""
    called = f"{name} {type(module).__name__}".lower()
    return "expert" in called and "shared" not in called


def is_layer_class(module: nn.Module) -> bool:
    """Whether the class of a module is named after a MoE layer, or after experts."""
    called = type(module).__name__
    return bool(_LAYER_CLASS.search(called)) and "shared" not in called.lower()


def holds_experts_by_name(name: str, module: nn.Module) -> bool:
    """Whether the name of a module, or a class like ``MixtralExperts``, says that it holds experts."""
    if "shared" in name.lower() or "shared" in type(module).__name__.lower():
        return False
    return bool(_EXPERT_NAME.search(name)) or bool(_EXPERTS_CLASS.search(type(module).__name__))


def declared_numbers(*modules: Any) -> Iterator[int]:
    """Yields the numbers of experts that modules state, the most trusted first."""
    values = (_attribute(module, name) for module in modules for name in _NUM_EXPERTS)
    return (value for value in values if type(value) is int and value > 0)


def stated_top_k(*modules: Any) -> int:
    """Returns the number of experts a token that one of the modules states, by attribute, class or config; else 0."""
    own = [_attribute(module, name) for module in modules for name in _TOP_K]
    own += [_WORDS.get(word) or (int(word) if word.isdecimal() else 0) for word in _k_in_classes(modules)]
    own += [_attribute(config, name) for config in _configs(modules) for name in _TOP_K[:-1]]
    return next((value for value in own if type(value) is int and value > 0), 0)


def stated_width(module: Any) -> int:
    """Returns the inner width of one expert that the config of a module states; else 0."""
    stated = (_attribute(config, "ffn_hidden_size") for config in _configs((module,)))
    return next((value for value in stated if type(value) is int and value > 0), 0)


def _configs(modules: tuple[Any, ...]) -> list[Any]:
    """Returns the configs of modules: what MegaBlocks' modules call ``args`` is one, too."""
    found = [_attribute(module, name) for module in modules for name in ("config", "args")]
    return [config for config in found if config is not None]


def has_capacity(*modules: Any) -> bool:
    """Whether a module states a capacity of its experts: a router may then return what is left after drops."""
    attributes = (name for module in modules for name in getattr(module, "__dict__", ()) if "capacity" in name.lower())
    return any(attributes)


def may_drop(*modules: Any) -> bool:
    """Whether a module, its config or the code of its class speaks of a capacity: it may drop some of the choices."""
    if has_capacity(*modules) or any(_attribute(one, "capacity_factor") for one in _configs(modules)):
        return True
    classes = {base for module in modules for base in type(module).__mro__ if base not in (nn.Module, object)}
    functions = (getattr(one, "__code__", None) for base in classes for one in vars(base).values())
    names = (name for code in functions if code is not None for name in (*code.co_names, *code.co_varnames))
    return any(drops_inside(module) for module in modules) or any(_DROPS.search(name) for name in names)


def drops_inside(experts: Any) -> bool:
    """Whether experts drop some of the choices that they are called with, as MegaBlocks' with a capacity do."""
    factors = (_attribute(config, "moe_capacity_factor") for config in _configs((experts,)))
    return "dropless" not in type(experts).__name__.lower() and any(factors)


def config_smell(module: nn.Module) -> str:
    """Returns an attribute of the model's config that states several experts, with its value; empty without one."""
    config = _attribute(module, "config")
    configs = [config, *(_attribute(config, name) for name in ("text_config", "ffn_config"))]
    for one in configs if config is not None else ():
        for name in _NUM_EXPERTS:
            value = _attribute(one, name)
            if type(value) is int and value > 1:
                return f"config.{name} = {value}"
    return ""


def _k_in_classes(modules: tuple[Any, ...]) -> Iterator[str]:
    for module in modules:
        found = _STATED_K.search(type(module).__name__)
        if found:
            yield found[1].lower()


def _attribute(thing: Any, name: str) -> Any:
    """Returns a plain attribute, of a module without its ``__getattr__``, which a wrapper may pass on; else None."""
    found = getattr(thing, "__dict__", {}).get(name)
    return getattr(type(thing), name, None) if found is None and thing is not None else found


def _is_torchs(module: nn.Module) -> bool:
    return package_of(module).startswith("torch.")
