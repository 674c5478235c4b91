"""Finds what may hold experts: alike blocks of weights, one for each expert.

These are the modules of a list or a dict, the parameters of a list, or weights of three dimensions, of which the first
counts the experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import nn

from distprof.frameworks.module_view import ModelView, Weight, package_of, unwrapped
from distprof.frameworks.moe_names import declared_numbers, names_experts, stated_width


@dataclass(frozen=True)
class Blocks:
    """Alike blocks of weights.

    ``module`` is what the layer calls, with its wrappers; for weights of the layer itself it is the layer, and
    ``names`` are their names.  ``local``: the number of blocks on this rank; ``whole``: in all, as far as their own
    shapes or places show.  ``modules``: the experts, where each is a module, and ``ids`` their global ids where others
    live elsewhere.  ``widths``: the dimensions of one block.
    """

    module: nn.Module
    local: int
    whole: int
    is_named: bool
    widths: frozenset[int]
    modules: tuple[nn.Module, ...] = ()
    ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


def blocks_of(name: str, module: nn.Module, view: ModelView) -> Blocks | None:
    """Returns the blocks that a child of a layer holds; None if it holds no alike blocks."""
    inner = unwrapped(module)
    named = names_experts(name, inner)
    if isinstance(inner, (nn.ModuleList, nn.ModuleDict)):
        return _listed(module, inner, view, named=named)
    weights = view.weights(inner)
    if isinstance(inner, nn.ParameterList):
        shapes = {weight.shape for weight in weights.values()}
        (shape,) = shapes if len(shapes) == 1 else ((),)
        local = len(weights)
        return Blocks(module, local, local, named, frozenset(shape)) if len(shape) == 2 and local > 1 else None
    if package_of(inner).startswith("torch."):
        return None
    return _stacked(module, weights, named=named) or (_flattened(module, inner, view) if named else None)


def own_blocks(layer: nn.Module, view: ModelView) -> Blocks | None:
    """Returns the blocks among the layer's own parameters."""
    if package_of(layer).startswith("torch."):
        return None
    return _stacked(layer, view.weights(layer), named=False, own=True)


def _listed(module: nn.Module, inner: nn.Module, view: ModelView, *, named: bool) -> Blocks | None:
    entries = [*inner._modules.values()]
    present = [(place, one) for place, one in enumerate(entries) if one is not None and not _is_beside(one)]
    kinds = {type(unwrapped(one)) for _, one in present}
    if len(kinds) != 1 or (len(entries) < 2 and not named) or len({id(one) for _, one in present}) < len(present):
        return None  # of a module at several places, rows do not say which of them is meant
    places = sorted({0, 1, len(present) - 1} & {*range(len(present))})  # a few show whether all are alike
    shapes = [_shapes(present[place][1], view) for place in places]
    if not named and (not shapes[0] or shapes[1:] != shapes[:1] * (len(shapes) - 1)):
        return None
    has_gaps = None in entries
    return Blocks(
        module,
        len(present),
        len(entries) if has_gaps else len(present),
        named,
        frozenset(size for _, shape in shapes[0] for size in shape),
        modules=tuple(one for _, one in present),
        ids=tuple(place for place, _ in present) if has_gaps else (),
    )


def _is_beside(module: nn.Module) -> bool:
    """Whether a module in a list of experts is none."""
    return isinstance(module, (nn.Dropout, nn.Identity))


def _shapes(module: nn.Module, view: ModelView) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((name, weight.shape) for name, weight in view.weights_below(module))


def _stacked(module: nn.Module, weights: Mapping[str, Weight], *, named: bool, own: bool = False) -> Blocks | None:
    """Returns the blocks of weights of three dimensions; where their lengths differ, some experts have no weights."""
    stacked = {name: weight for name, weight in weights.items() if len(weight.shape) > 2}
    sizes = {(weight.shape[0], weight.local) for weight in stacked.values()}
    if not sizes or (len(sizes) > 1 and (own or not named)):
        return None
    whole, local = max(sizes)
    beside = [name for name, weight in weights.items() if len(weight.shape) == 2 and weight.shape[0] == whole]
    names = (*stacked, *(name for name in beside if name.endswith("bias"))) if own else ()
    widths = frozenset(size for weight in stacked.values() for size in weight.shape[1:])
    return Blocks(module, local, whole, named, widths, names=names) if local else None


def _flattened(module: nn.Module, inner: nn.Module, view: ModelView) -> Blocks | None:
    """Returns the blocks of matrices that hold the experts one below the other, of which their module says how many."""
    matrices = [weight for _, weight in view.weights_below(inner, depth=1) if len(weight.shape) > 1]
    number = next(declared_numbers(inner), 0)
    if number < 2 or not matrices or any(len(one.shape) != 2 or one.shape[0] % number for one in matrices):
        return None
    width = stated_width(inner)  # some modules state the number of all ranks, and hold those of one
    if width and all(one.shape[0] % width == 0 and number % (one.shape[0] // width) == 0 for one in matrices):
        number = matrices[0].shape[0] // width
    local = {one.local * number // one.shape[0] for one in matrices}
    widths = frozenset(size for one in matrices for size in (one.shape[0] // number, one.shape[1]))
    return Blocks(module, local.pop(), number, True, widths) if len(local) == 1 else None


def candidates(layer: nn.Module, view: ModelView) -> Iterator[tuple[Blocks, nn.Module]]:
    """Yields what may hold the experts of a layer, each with the layer's child that it is, or is in."""
    own = own_blocks(layer, view)
    if own is not None:
        yield own, layer
    for name, child in layer._modules.items():
        if child is None:
            continue
        found = blocks_of(name, child, view)
        if found is not None:
            yield found, child
            continue
        named = names_experts(name, unwrapped(child))
        for inner_name, inner in unwrapped(child)._modules.items():
            deeper = blocks_of(inner_name, inner, view) if inner is not None else None
            if deeper is not None:
                yield replace(deeper, is_named=deeper.is_named or named), child
