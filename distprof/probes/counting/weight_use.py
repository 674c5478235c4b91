"""Counts the rows that meet the weights of each block which may be an expert, in a counted step.

The weights of all experts may lie in one tensor of three dimensions, as those of all heads of attention do.  Tokens of
an expert meet its own part alone, or a batched product has as many rows for each part as its capacity is.  Where one
product has all parts at once, or each part meets all tokens, the layer is dense.

Some layers use the weights of their experts without calling them as modules.  Where each token meets k of the blocks,
and each block meets some of the tokens, these may be experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.model.unnamed_layers import UnnamedLayer
from distprof.probes.experts import read_hidden

_aten = torch.ops.aten
_PRODUCTS = (_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default)
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_COPIES = (_aten.clone.default, _aten._to_copy.default)


@dataclass
class _Use:
    """How the weights of one layer were used in a step."""

    as_whole: bool = False
    rows: dict[int, int] = field(default_factory=dict)  # that met each part, by the place where the part lies
    blocks: list[int] = field(default_factory=list)  # the places of one part of each expert
    router: int = 0  # the place of the layer's own router; 0: it has none
    seen: int = 0  # rows that met one of the blocks
    zeros: list[torch.Tensor] = field(default_factory=list)  # how many of these are zeros


@dataclass(frozen=True)
class _Part:
    """Where the weights of one expert begin, in a tensor of so many of them."""

    use: _Use
    start: int
    elements: int
    number: int
    storage: StorageWeakRef | None = None  # of a copy: its place may be used again


class WeightUse:
    """Watches the weights of candidates; :meth:`begin` starts a step."""

    def __init__(self, candidates: Sequence[UnnamedLayer]) -> None:
        self._candidates = candidates
        self._uses: list[_Use] = []
        self._parts: dict[int, _Part] = {}
        self.watches = any(one.read_weights is not None for one in candidates)

    def begin(self) -> None:
        self._uses = [_Use() for _ in self._candidates]
        self._parts = {}
        if self.watches:
            read_hidden(self._find_parts)

    def _find_parts(self) -> None:
        for use, one in zip(self._uses, self._candidates, strict=True):
            weights = one.read_weights() if one.read_weights is not None else []
            if one.layer.expert_rows:
                parts = [_Part(use, weight.data_ptr(), weight.numel(), 1) for weight in weights]
            else:
                parts = [part for weight in weights for part in _parts_of(use, weight, one.layer.num_experts)]
            use.blocks = [part.start for part in parts[: one.layer.num_experts]]
            for weight in one.read_router() if one.read_router is not None else ():
                use.router = weight.data_ptr()
                parts.append(_Part(use, use.router, weight.numel(), 1))
            self._parts |= {part.start: part for part in parts}

    def is_dense(self, number: int, tokens: int) -> bool:
        """Whether all weights of a candidate were used for each of its tokens."""
        use = self._uses[number]
        return use.as_whole or (bool(use.rows) and min(use.rows.values()) == max(use.rows.values()) >= tokens > 0)

    def is_padded(self, number: int) -> bool:
        """Whether half of the rows that met blocks are zeros: a capacity for all tokens, of which few are there.

        Waits for the device.
        """
        use = self._uses[number]
        return use.seen > 0 and 2 * int(sum(zeros.item() for zeros in use.zeros)) >= use.seen

    def is_choice(self, number: int, tokens: int) -> bool:
        """Whether each token met k of a candidate's blocks, and blocks met unlike numbers of them, in no order of their
        size, as levels of a pyramid have.
        """
        use = self._uses[number]
        tokens = use.rows.get(use.router, 0) if use.router else tokens
        counts = [use.rows.get(start, 0) for start in use.blocks]
        ordered = sorted(counts)
        is_share = tokens > 0 and sum(counts) % tokens == 0 and 0 < sum(counts) // tokens < len(counts)
        return is_share and max(counts) < tokens and counts not in (ordered, ordered[::-1]) and not use.as_whole

    def end(self) -> None:
        """Forgets all places: what lies there may be freed."""
        self._uses, self._parts = [], {}

    def ran(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """Looks at a product or a copy in forward."""
        if torch._C._current_graph_task_id() != -1:
            return
        tensors = [value for value in args if type(value) in _PLAIN]
        if func in _COPIES:
            part = self._part(tensors[0]) if tensors else None
            if part is not None and tensors[0].numel() == part.number * part.elements:
                storage = StorageWeakRef(result.untyped_storage())
                copy = _Part(part.use, result.data_ptr(), part.elements, part.number, storage)
                self._parts[copy.start] = copy
            return
        for weight, other in (tensors[-2:], tensors[:-3:-1]) if len(tensors) > 1 else ():
            part = self._part(weight)
            if part is not None:
                rows = other.numel() // max(other.shape[-1 if other is tensors[-2] else -2], 1)
                _add(part, weight, rows)
                if other is tensors[-2] and part.start in part.use.blocks:
                    part.use.seen += rows
                    part.use.zeros.append((other.detach() == 0).all(-1).sum())

    def _part(self, tensor: torch.Tensor) -> _Part | None:
        part = self._parts.get(tensor.data_ptr())
        return None if part is None or (part.storage is not None and part.storage.expired()) else part


def watching(use: WeightUse) -> Callable[[Attribution], FlopMode]:
    """Returns a maker of modes that count, and show ``use`` their products and copies."""
    return partial(_WatchingMode, use)


class _WatchingMode(FlopMode):
    def __init__(self, use: WeightUse, attribution: Attribution) -> None:
        super().__init__(attribution)
        self._use = use
        self._watched = {id(func) for func in (*_PRODUCTS, *_COPIES)}  # an op computes its hash in Python

    def _count(self, func: Any, counted: Any, args: Any, kwargs: Any, result: Any) -> None:
        super()._count(func, counted, args, kwargs, result)
        if id(func) in self._watched:
            read_hidden(self._use.ran, func, args, result)


def _parts_of(use: _Use, weight: torch.Tensor, number: int) -> Iterator[_Part]:
    first, step = weight.data_ptr(), weight.stride(0) * weight.element_size()
    for place in range(number):
        yield _Part(use, first + place * step, weight.numel() // number, number)


def _add(part: _Part, weight: torch.Tensor, rows: int) -> None:
    """Adds a product of a part, of all parts in a batch, or of all at once; ``rows`` are those of the other operand."""
    if weight.numel() == part.elements:
        part.use.rows[part.start] = part.use.rows.get(part.start, 0) + rows
    elif weight.numel() == part.elements * part.number:
        is_batch = weight.dim() == 3 and weight.shape[0] == part.number
        part.use.rows[part.start] = part.use.rows.get(part.start, 0) + rows // part.number
        part.use.as_whole = part.use.as_whole or not is_batch
