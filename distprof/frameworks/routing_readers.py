"""Reads the experts of a MoE layer's tokens, from a router's output or from the experts' arguments.

There is one reader for each form in which stacks hand on a choice:

    ids       integers, [..., k] or [k, tokens], or without a dimension for k where k is 1
    mask      bools or integers, [..., experts], 1 where an expert was chosen
    scores    numbers, [..., experts], 0 where an expert was not chosen
    places    integers, [experts, capacity]: each expert's tokens (expert choice)
    counts    integers, [experts], as a tensor or as a list; floats, if their sum is that of all choices

Readers run during the call: they keep no tensor, change none, and wait for no device.  They raise
:class:`UnclearChoice` where two readings are possible.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from distprof.frameworks.protocol import Routing
from distprof.native import extension
from distprof.tensors.device_counts import copied, count_on_device, made
from distprof.topology.imported import is_a

#: Where a layer does not state its k: a tensor of integers with a longer last dimension means something else.
MAX_TOP_K = 16
_INTEGERS = frozenset((torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8))
#: The bytes of an id, where the compiled part can count them.
_BYTES = {torch.int64: 8, torch.int32: 4}
#: Tensors are looked for in tuples, dicts and dataclasses so deep, and in no longer ones.
_DEPTH, _LONGEST = 2, 64


class UnclearChoice(ValueError):
    """A call shows integers that may be the ids of experts, and may be something else."""


class _LastCount:
    """The last counts: the ids that a router returns are often those that its experts are called with."""

    def __init__(self) -> None:
        self._of: tuple[weakref.ref[torch.Tensor] | None, int, int] = None, 0, 0
        self._counts: torch.Tensor | None = None

    def get(self, ids: torch.Tensor, num_experts: int) -> torch.Tensor | None:
        reference, version, experts = self._of
        same = reference is not None and reference() is ids and experts == num_experts
        return self._counts if same and not ids.is_inference() and ids._version == version else None

    def keep(self, ids: torch.Tensor, num_experts: int, counts: torch.Tensor) -> None:
        if not ids.is_inference():
            self._of, self._counts = (weakref.ref(ids), ids._version, num_experts), counts


_last = _LastCount()


def count_by_expert(ids: torch.Tensor, num_experts: int) -> torch.Tensor:
    """Counts each expert in ``ids``, of any shape; other numbers (of dropped tokens) are left out.

    Nothing may change the result: it is kept, and returned again for the same ids.
    """
    counts = _last.get(ids, num_experts)
    if counts is None:
        counts = _count(ids, num_experts)
        _last.keep(ids, num_experts, counts)
    return made(counts)


def _count(ids: torch.Tensor, num_experts: int) -> torch.Tensor:
    return _count_on_host(ids, num_experts) if ids.is_cpu else count_on_device(ids, num_experts)


def _count_on_host(ids: torch.Tensor, num_experts: int) -> torch.Tensor:
    id_bytes = _BYTES.get(ids.dtype)
    if extension.compiled is not None and id_bytes and ids.is_contiguous():
        counts = extension.compiled.count_ids(ids.data_ptr(), ids.numel(), id_bytes, num_experts)
        return torch.frombuffer(counts, dtype=torch.int64)
    flat = ids.numpy().reshape(-1).astype(np.int64, copy=False)
    unsigned = flat.view(np.uint64)  # what is below 0 is above all experts: one look at the ids finds both
    if np.maximum.reduce(unsigned, initial=0) >= num_experts:
        flat = flat[unsigned < num_experts]
    return torch.from_numpy(np.bincount(flat, minlength=num_experts))


def read_choice(output: Any, num_experts: int, *, top_k: int = 0, limited: bool = False) -> Routing | None:
    """Reads a router whose output is, or includes, the choice of its tokens in one of the forms above.

    ``top_k`` is the number of experts a token where the layer states it.  ``limited``: the layer states a capacity, so
    that a mask, or counts, may show what is left after drops.
    """
    values = [*plain_values(output)]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    ids = _ids(tensors, num_experts, top_k)
    if ids is not None:
        chosen = _chosen_tokens(ids, num_experts)
        return Routing(count_by_expert(ids, num_experts)) if chosen is None else Routing(chosen, chosen)
    for tensor in tensors:
        found = _mask(tensor, num_experts, top_k, limited=limited) or _places(tensor, num_experts, top_k)
        if found is not None:
            return found
    counts = None if limited else _counts(values, num_experts)
    if counts is not None:
        return Routing(counts)
    scores = _nonzero_scores(tensors, num_experts, top_k)
    return _float_counts(tensors, num_experts, top_k, scores) or scores


def read_arguments(arguments: tuple[Any, ...], num_experts: int, *, top_k: int = 0) -> torch.Tensor | None:
    """Reads experts whose arguments include the ids of each token's experts, or the number of tokens of each expert."""
    values = [*plain_values(arguments)]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    ids = _ids(tensors, num_experts, top_k)
    if ids is None:
        return _counts(values, num_experts)
    chosen = _chosen_tokens(ids, num_experts)
    return count_by_expert(ids, num_experts) if chosen is None else chosen


def read_counts(arguments: tuple[Any, ...], local: int) -> torch.Tensor | None:
    """Reads experts whose arguments include the number of tokens of each local expert: [local]."""
    values = plain_values(arguments)
    for value in values:
        if isinstance(value, torch.Tensor) and tuple(value.shape) == (local,):
            return copied(value)
        if isinstance(value, (list, tuple)) and _is_list_of_counts(value, local):
            return torch.tensor(value, dtype=torch.int64)
    return None


def plain_values(values: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Yields the plain tensors and lists of ints among a call's values, and the local parts of DTensors; no subclasses
    of tensors.
    """
    for value in _items(values):
        if type(value) is torch.Tensor:
            yield value
            continue
        tensor = value._local_tensor if is_a(value, "torch.distributed.tensor", "DTensor") else value
        if type(tensor) is torch.Tensor or _begins_with_int(value):
            yield tensor
        elif depth > 1 and _has_items(value):
            yield from plain_values(value, depth - 1)


def _begins_with_int(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) and not isinstance(value, torch.Size)
    return is_list and len(value) > 0 and type(value[0]) is int


def _has_items(value: Any) -> bool:
    if isinstance(value, (Mapping, tuple, list)):
        return len(value) <= _LONGEST and not isinstance(value, torch.Size)
    return is_dataclass(value) and not isinstance(value, type)


def _items(values: Any) -> Iterable[Any]:
    """Returns the items of a tuple, list, dict or dataclass; else the value alone."""
    if type(values) is tuple and len(values) <= _LONGEST:  # most outputs and arguments
        return values
    if not _has_items(values):
        return (values,)
    if isinstance(values, Mapping):
        return values.values()
    return values if isinstance(values, (tuple, list)) else (getattr(values, one.name, None) for one in fields(values))


def _ids(tensors: list[torch.Tensor], num_experts: int, top_k: int) -> torch.Tensor | None:
    """Returns the tensor of the chosen experts' ids."""
    integers = [tensor for tensor in tensors if tensor.dtype in _INTEGERS]
    fitting = [tensor for tensor in integers if _is_of_k(tensor, num_experts, top_k)]
    if fitting:
        if len(fitting) > 1 and any(tensor is not fitting[0] for tensor in fitting):
            raise UnclearChoice("two tensors of integers, such as ids of experts and places in their capacity")
        return fitting[0]
    if not top_k:
        return None
    for tensor in integers:
        is_turned = tensor.dim() == 2 and tensor.shape[0] == top_k and tensor.shape[1] != num_experts
        is_top_1 = top_k == 1 and tensor.dim() in (1, 2) and tensor.shape[-1] != num_experts
        if is_turned or is_top_1:
            return tensor
    return None


def _is_of_k(tensor: torch.Tensor, num_experts: int, top_k: int) -> bool:
    """Whether the last dimension may be k."""
    width = tensor.size(-1) if tensor.dim() > 1 else 0
    return width > 0 and (width == top_k <= num_experts if top_k else width <= MAX_TOP_K and width < num_experts)


def _chosen_tokens(ids: torch.Tensor, num_experts: int) -> torch.Tensor | None:
    """Returns the counts of experts that chose their tokens, where ``ids`` are not of experts but of these tokens.

    Both look alike where there are as many tokens as experts: then the numbers decide.
    """
    if ids.dim() != 2 or ids.shape[0] != num_experts or not ids.numel():
        return None
    if not ids.is_cpu:
        raise UnclearChoice("as many rows as experts: they may choose tokens, and to look would wait for the device")
    return _full(ids, num_experts) if int(ids.max()) > num_experts else None


def _full(ids: torch.Tensor, num_experts: int) -> torch.Tensor:
    return made(torch.full((num_experts,), ids.shape[1], dtype=torch.int64, device=ids.device))


def _mask(tensor: torch.Tensor, num_experts: int, top_k: int, *, limited: bool) -> Routing | None:
    is_mask = tensor.dtype == torch.bool or (top_k and tensor.dtype in _INTEGERS)
    if not is_mask or tensor.dim() < 2 or tensor.shape[-1] != num_experts:
        return None
    if not top_k and limited:
        return None  # what is left after drops, of an unknown number
    chosen = made(tensor.reshape(-1, num_experts).sum(0))
    return Routing(chosen, chosen, choices=top_k * (tensor.numel() // num_experts))


def _places(tensor: torch.Tensor, num_experts: int, top_k: int) -> Routing | None:
    """Reads the tokens that each expert has chosen: as many for each."""
    is_like = tensor.dtype in _INTEGERS and tensor.dim() == 2 and tensor.shape[0] == num_experts
    if not is_like or tensor.shape[1] == top_k or tensor.shape[1] <= MAX_TOP_K:
        return None
    each = _full(tensor, num_experts)
    return Routing(each, each)


def _counts(values: list[Any], num_experts: int) -> torch.Tensor | None:
    for value in values:
        if isinstance(value, torch.Tensor):
            if tuple(value.shape) == (num_experts,) and value.dtype in _INTEGERS:
                return copied(value)
        elif _is_list_of_counts(value, num_experts):
            return torch.tensor(value, dtype=torch.int64)
    return None


def _nonzero_scores(tensors: list[torch.Tensor], num_experts: int, top_k: int) -> Routing | None:
    """Reads scores that are zero where an expert was not chosen; whether they are is seen by their number."""
    for tensor in tensors if 0 < top_k < num_experts else ():
        if tensor.dim() > 1 and tensor.shape[-1] == num_experts and tensor.is_floating_point():
            chosen = made((tensor != 0).reshape(-1, num_experts).sum(0))
            return Routing(chosen, chosen, choices=top_k * prod(tensor.shape[:-1]), must_be_all=True)
    return None


def _float_counts(tensors: list[torch.Tensor], num_experts: int, top_k: int, other: Routing | None) -> Routing | None:
    """Reads counts that are floats, if they are whole numbers, as many as the choices of all tokens; else ``other``.

    The device decides: nothing waits for it.  The number of tokens is that of the rows of scores, or of weights.
    """
    widths = (num_experts, top_k) if top_k else ()
    rows = next((t.numel() // t.shape[-1] for t in tensors if t.dim() > 1 and t.shape[-1] in widths), 0)
    for tensor in tensors if rows else ():
        if tuple(tensor.shape) == (num_experts,) and tensor.is_floating_point():
            counts = tensor.detach().long()
            are_counts = (counts == tensor).all() & (counts.sum() == top_k * rows)
            routed = counts * are_counts if other is None else torch.where(are_counts, counts, other.routed)
            return Routing(routed, None if other is None else routed, choices=top_k * rows, must_be_all=True)
    return None


def _is_list_of_counts(value: Any, number: int) -> bool:
    return len(value) == number and number > 1 and all(type(one) is int for one in value)
