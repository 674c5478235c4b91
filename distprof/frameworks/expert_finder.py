"""MoE layers of any stack: a router with as many rows as there are experts, beside as many alike blocks of weights.

Names decide little: a layer whose names tell neither of experts nor of a MoE layer is found by its weights, and called
a guess.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn
from torch.nn.parameter import is_lazy

from distprof.frameworks.expert_blocks import Blocks, candidates
from distprof.frameworks.module_view import ModelView, Weight, is_wrapping, package_of, unwrapped
from distprof.frameworks.moe_names import (
    declared_numbers,
    drops_inside,
    has_capacity,
    is_layer_class,
    is_router_name,
    names_router,
    stated_top_k,
)
from distprof.frameworks.protocol import Experts
from distprof.frameworks.routing_readers import read_arguments, read_choice, read_counts

#: Arguments of experts with this name hold the number of tokens of each.
_COUNTS = re.compile(
    r"(tokens?|num|counts?|rows)_?(per|of|by)_?(local_)?experts?|expert_(sizes?|counts?)|(batch|group)_sizes"
)

_LISTS = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class _Router:
    """A router; ``rows`` and ``columns`` are the dimensions of its matrices, the last matrix first.

    Of what it chooses from, some may be no experts of the blocks: shared ones, or an expert that computes nothing.
    Therefore the number of experts that its module states also counts.
    """

    module: nn.Module | None  # None where its weights are the layer's own
    is_named: bool
    rows: tuple[int, ...]
    columns: tuple[int, ...]  # where the experts may be the columns
    inputs: frozenset[int]
    stated: tuple[int, ...] = ()
    name: str = ""  # of the layer's own weight

    def fits(self, blocks: Blocks) -> bool:
        return self.number(blocks) > 0 or (self.is_named and not self.rows)

    def number(self, blocks: Blocks) -> int:
        """Returns the number of experts of which ``blocks`` are all, or this rank's; 0 if it does not fit them."""
        if blocks.whole in self.rows or blocks.whole in self.columns:
            return blocks.whole
        larger = (size for size in (*self.stated, *self.rows) if size >= blocks.whole and size % blocks.whole == 0)
        return next(larger, 0) if self.is_named and blocks.is_named else 0


def find_experts(layer: nn.Module, view: ModelView) -> Experts | None:
    """Returns the experts of a module if it is a MoE layer; ``view`` is that of the whole model."""
    if is_wrapping(layer):
        return None
    found = [*candidates(layer, view)]
    for blocks, child in sorted(found, key=lambda one: not one[0].is_named):
        inside = blocks.module is not child
        routers = [*_routers(layer, {id(blocks.module), id(child)}, view)]
        router = next((one for one in routers if one.fits(blocks)), None)
        needs_router = not inside or (router is not None and router.is_named)
        if child is not layer and _is_itself_a_layer(child, view, with_router=needs_router):
            continue
        if _is_layer(layer, blocks, router, len(routers), inside=inside):
            alike = [one for one, _ in found if one is not blocks and _are_alike(one, blocks)]
            return _experts(layer, _as_called(blocks, child, view), router, alike)
    return None


def unnamed_experts(layer: nn.Module, view: ModelView) -> Iterator[tuple[Experts, str]]:
    """Yields what may be the experts of a layer, where no name says so: alike blocks of weights, beside a module whose
    last matrix has a row for each of them, or beside such a matrix, whose name is yielded too.

    By structure alone the layers of a model and its head are no different, nor are heads of attention: only their calls
    and the use of their weights tell.
    """
    if is_wrapping(layer) or not (_holds_lists(layer) or _holds_stacks(layer)):
        return
    for blocks, child in candidates(layer, view):
        if blocks.is_named or blocks.whole < 2 or (not blocks.modules and blocks.local < blocks.whole):
            continue
        if blocks.module is not child and next(unnamed_experts(unwrapped(child), view), None) is not None:
            continue  # the child is the layer
        for router in _routers(layer, {id(blocks.module), id(child)}, view, of_any_class=True):
            takes_same = bool((router.inputs - {blocks.whole}) & blocks.widths)  # a square matrix is no router
            sizes = router.rows[:1] if router.module is not None else (*router.rows, *router.columns)
            if blocks.whole in sizes and takes_same:
                yield _experts(layer, blocks, router, ()), router.name


def _holds_lists(layer: nn.Module) -> bool:
    """Whether a child or a grandchild is a list or a dict of modules."""
    children = [unwrapped(child) for child in unwrapped(layer)._modules.values() if child is not None]
    inside = (unwrapped(one) for child in children for one in child._modules.values() if one is not None)
    return any(isinstance(one, _LISTS) for one in (*children, *inside))


def _holds_stacks(layer: nn.Module) -> bool:
    """Whether a module, or a child, has weights of three dimensions of its own; torch's own modules do not count."""
    own = (one for one in (layer, *layer._modules.values()) if one is not None)
    holders = (one for one in map(unwrapped, own) if not package_of(one).startswith("torch."))
    every = (weight for holder in holders for weight in holder._parameters.values() if weight is not None)
    return any(len(getattr(weight, "ds_shape", None) or weight.shape) > 2 for weight in every if not is_lazy(weight))


def _is_itself_a_layer(child: nn.Module, view: ModelView, *, with_router: bool) -> bool:
    """Whether a child that holds experts, or is named after them, is a whole layer.

    ``with_router``: only one with a router counts, and no list, which holds a module for each expert.  A child without
    one, beside a router, is a part: torchtitan's layer has its experts in a module that sends them their tokens.
    """
    inner = unwrapped(child)
    is_list = with_router and isinstance(inner, (nn.ModuleList, nn.ParameterList))
    found = None if is_list else find_experts(inner, view)
    return found is not None and (found.router is not None or not with_router)


def _is_layer(layer: nn.Module, blocks: Blocks, router: _Router | None, routers: int, *, inside: bool) -> bool:
    """Whether router and blocks make a MoE layer.  Without names, the router's input has to be that of the blocks."""
    if router is None:
        return blocks.is_named and not inside
    if blocks.is_named:
        return router.is_named or not inside
    if blocks.whole < 2 or not router.number(blocks) or not router.inputs & blocks.widths:
        return False
    # A list of alike modules beside a Linear may be the layers of a model and its head.
    return router.is_named or (not blocks.modules and (routers == 1 or is_layer_class(layer)))


def _as_called(blocks: Blocks, child: nn.Module, view: ModelView) -> Blocks:
    """Returns stacked weights as those of the layer's child that they are in, if it has no others: the layer calls it
    with the ids of experts.  Weights stay those of a module inside that is called with the tokens of each.
    """
    if blocks.modules or blocks.names or blocks.module is child or _takes_counts(unwrapped(blocks.module)):
        return blocks
    lengths = {weight.shape[0] for _, weight in view.weights_below(child) if weight.shape}
    return replace(blocks, module=child) if lengths == {blocks.whole} else blocks


def _experts(layer: nn.Module, blocks: Blocks, router: _Router | None, alike: Sequence[Blocks]) -> Experts:
    chooser = router.module if router is not None else None
    inner = unwrapped(chooser) if chooser is not None else None
    holder = unwrapped(blocks.module)
    top_k = stated_top_k(*(module for module in (layer, inner, holder) if module is not None))
    limited = has_capacity(layer, *(() if inner is None else (inner,)))
    counts = not blocks.modules and _takes_counts(holder)
    unread = inner is None or _gives_scores(inner)
    read = None if unread else partial(read_choice, top_k=top_k, limited=limited)
    return Experts(
        num_experts=_number(layer, blocks, router, holder),
        modules=blocks.modules,
        holder=None if blocks.modules else blocks.module,
        local=blocks.local,
        top_k=top_k,
        router=chooser,
        read_router=read,
        read_handed=None if blocks.modules or counts or drops_inside(holder) else partial(read_arguments, top_k=top_k),
        read_processed=read_counts if counts else None,
        ids=blocks.ids,
        parts=tuple(one.module for one in alike),
        own=blocks.names,
        guessed=not blocks.is_named and not is_layer_class(layer),
    )


def _number(layer: nn.Module, blocks: Blocks, router: _Router | None, holder: nn.Module) -> int:
    """Returns the global number of experts; 0 if nothing says more than how many this rank has."""
    if blocks.ids or blocks.local < blocks.whole:
        return blocks.whole
    by_router = router.number(blocks) if router is not None else 0
    inner = unwrapped(router.module) if router is not None and router.module is not None else None
    stated = declared_numbers(*(module for module in (layer, inner, holder) if module is not None))
    if by_router:
        return by_router
    fitting = [number for number in stated if number >= blocks.local and number % blocks.local == 0]
    return fitting[0] if fitting else (0 if blocks.modules else blocks.whole)


def _are_alike(one: Blocks, other: Blocks) -> bool:
    return (one.local, one.whole, one.is_named) == (other.local, other.whole, other.is_named) and (
        bool(one.modules) == bool(other.modules)
    )


def _routers(layer: nn.Module, without: set[int], view: ModelView, *, of_any_class: bool = False) -> Iterator[_Router]:
    """Yields what may be the layer's router, the children with a router's name first; of the others only Linears,
    unless they may be ``of_any_class``.
    """
    children = [(name, child) for name, child in layer._modules.items() if child is not None]
    children = [(name, child) for name, child in children if id(child) not in without]
    for name, child in sorted(children, key=lambda one: not names_router(one[0], unwrapped(one[1]))):
        named = names_router(name, unwrapped(child))
        is_like = of_any_class and not isinstance(unwrapped(child), _LISTS) and not _holds_lists(child)
        if named or is_like or isinstance(unwrapped(child), nn.Linear):
            yield _router(child, [weight for _, weight in view.weights_below(child, depth=2)], named=named)
    for name, weight in view.weights(layer).items():
        if len(weight.shape) == 2 and not name.endswith("bias"):
            yield replace(_router(None, [weight], named=is_router_name(name.removesuffix("_weight"))), name=name)


def _router(module: nn.Module | None, weights: Sequence[Weight], *, named: bool) -> _Router:
    matrices = [weight for weight in reversed(weights) if len(weight.shape) == 2]
    return _Router(
        module,
        named,
        tuple(weight.shape[0] for weight in matrices),
        tuple(weight.shape[1] for weight in matrices if not weight.of_linear),
        frozenset(size for weight in matrices for size in weight.shape),
        tuple(declared_numbers(unwrapped(module))) if module is not None else (),
    )


def _gives_scores(router: nn.Module) -> bool:
    """Whether a router is a plain layer of torch's: it returns the scores of all experts, not the choice."""
    return package_of(router).startswith("torch.nn")


def _takes_counts(holder: nn.Module) -> bool:
    try:
        return any(_COUNTS.search(name) for name in inspect.signature(type(holder).forward).parameters)
    except (TypeError, ValueError):
        return False
