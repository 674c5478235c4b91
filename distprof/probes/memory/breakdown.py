"""What training keeps in this rank's memory between two iterations: parameters, gradients, optimizer state.

Read once, when an optimizer has stepped and nothing has been cleared yet.  Only what lies on this rank counts: local
shards of DTensors, the partition that ZeRO-3 keeps beside an emptied parameter, the flat copies in which ZeRO and
mixed-precision optimizers step, which are optimizer state.  Nothing is kept alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn

from distprof.records import Memory

_ROWS, _COLUMNS = ("crow_indices", "col_indices", "values"), ("ccol_indices", "row_indices", "values")
#: What sparse tensors are made of, by layout.
_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: _ROWS,
    torch.sparse_bsr: _ROWS,
    torch.sparse_csc: _COLUMNS,
    torch.sparse_bsc: _COLUMNS,
}

_MAX_DEPTH = 4  # of what an optimizer keeps for a parameter


class MemoryBreakdown:
    """Meets the optimizers that step in one iteration; :meth:`record` says what is held at its end."""

    def __init__(self) -> None:
        self._optimizers: dict[int, weakref.ref[Any]] = {}

    def stepped(self, optimizer: Any) -> None:
        self._optimizers[id(optimizer)] = weakref.ref(optimizer)

    def record(self, modules: Iterable[nn.Module], iteration: int) -> Memory:
        """``modules``: all modules of the models of this rank."""
        parameters = list(
            {id(p): p for module in modules for p in module._parameters.values() if p is not None}.values()
        )
        optimizers = [optimizer for met in self._optimizers.values() if (optimizer := met()) is not None]
        own = {id(p) for p in parameters}
        copies = [p for optimizer in optimizers for p in _stepped(optimizer) if id(p) not in own]
        return Memory(
            iteration=iteration,
            parameter_bytes=_bytes(chain.from_iterable(map(_resident, parameters))),
            gradient_bytes=_bytes(p.grad for p in chain(parameters, copies) if p.grad is not None),
            optimizer_bytes=_bytes(chain(copies, *(_tensors(dict(one.state)) for one in optimizers))),
        )


def _stepped(optimizer: Any) -> Iterator[torch.Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _resident(parameter: Any) -> Iterator[torch.Tensor]:
    """ZeRO-3 empties a parameter between its uses and keeps this rank's part beside it."""
    yield parameter
    if hasattr(parameter, "ds_tensor"):
        yield parameter.ds_tensor


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of all of them together, each piece of memory once."""
    pieces = {_piece(part) for tensor in tensors for part in _parts(tensor)}
    return sum(size for *_, size in pieces)


def _parts(tensor: Any) -> Iterator[torch.Tensor]:
    """The plain tensors that a tensor is made of: a DTensor of its local shard, a quantized one of data and scales, a
    sparse one of values and where they belong.
    """
    if hasattr(tensor, "__tensor_flatten__"):
        inner = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        for part in inner:
            if isinstance(part, torch.Tensor):  # a DTensor names its mesh, too
                yield from _parts(part)
    elif tensor.layout in _SPARSE:
        yield from (getattr(tensor, name)() for name in _SPARSE[tensor.layout])
    else:
        yield tensor


def _piece(tensor: torch.Tensor) -> tuple[str, int, int]:
    """(device, address, bytes); a tensor without an address (meta) is told by itself."""
    size = tensor.numel() * tensor.element_size()
    return str(tensor.device), _address(tensor) or id(tensor), size if tensor.device.type != "meta" else 0


def _address(tensor: torch.Tensor) -> int:
    try:
        return tensor.data_ptr()
    except (RuntimeError, NotImplementedError):  # of a library's own layout (oneDNN)
        return 0


def _tensors(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif depth < _MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item, depth + 1)
