"""The memory that training keeps on this rank between two iterations: parameters, gradients, optimizer state.

It is read once, when an optimizer has stepped and nothing has been cleared yet.  Only memory of this rank counts: local
shards of DTensors, the partition that ZeRO-3 keeps beside an emptied parameter, and as optimizer state the flat copies
that ZeRO and mixed-precision optimizers step.  Nothing is kept alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn

from distprof.external_exceptions import pass_on
from distprof.records import Memory, MemoryUnknown
from distprof.tensors.nested_tensors import state_tensors

_ROWS, _COLUMNS = ("crow_indices", "col_indices", "values"), ("ccol_indices", "row_indices", "values")
#: The component tensors of sparse tensors, by layout.
_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: _ROWS,
    torch.sparse_bsr: _ROWS,
    torch.sparse_csc: _COLUMNS,
    torch.sparse_bsc: _COLUMNS,
}

_LONGEST_REASON = 300
_MAX_DEPTH = 4  # of nested containers in an optimizer's state


class MemoryBreakdown:
    """Collects the optimizers that step in one iteration; :meth:`record` measures memory at its end."""

    def __init__(self, window: int = 0) -> None:
        """``window`` is the number of the window, for the record."""
        self._window = window
        self._optimizers: dict[int, weakref.ref[Any]] = {}

    def stepped(self, optimizer: Any) -> None:
        self._optimizers[id(optimizer)] = weakref.ref(optimizer)

    def record(self, modules: Iterable[nn.Module], iteration: int) -> Memory | MemoryUnknown:
        """Returns the memory record, or why it is unknown; ``modules`` are all modules of the models of this rank."""
        try:
            return self._measure(modules, iteration)
        except Exception as error:  # a tensor of an unknown kind
            pass_on(error)
            return MemoryUnknown(iteration, f"{type(error).__name__}: {error}"[:_LONGEST_REASON], self._window)

    def _measure(self, modules: Iterable[nn.Module], iteration: int) -> Memory:
        parameters = list(
            {id(p): p for module in modules for p in module._parameters.values() if p is not None}.values()
        )
        optimizers = [optimizer for reference in self._optimizers.values() if (optimizer := reference()) is not None]
        own = {id(p) for p in parameters}
        copies = [p for optimizer in optimizers for p in _stepped(optimizer) if id(p) not in own]
        return Memory(
            iteration=iteration,
            parameter_bytes=_bytes(chain.from_iterable(map(_resident, parameters))),
            gradient_bytes=_bytes(p.grad for p in chain(parameters, copies) if p.grad is not None),
            optimizer_bytes=_bytes(chain(copies, *(state_tensors(dict(one.state), _MAX_DEPTH) for one in optimizers))),
            window=self._window,
        )


def _stepped(optimizer: Any) -> Iterator[torch.Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _resident(parameter: Any) -> Iterator[torch.Tensor]:
    """Yields the tensors of a parameter on this rank: ZeRO-3 empties it between uses and keeps a
    partition beside it.
    """
    yield parameter
    if hasattr(parameter, "ds_tensor"):
        yield parameter.ds_tensor


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Returns the bytes of all tensors together, each piece of memory once."""
    pieces = {_piece(part) for tensor in tensors for part in _parts(tensor)}
    return sum(size for *_, size in pieces)


def _parts(tensor: Any) -> Iterator[torch.Tensor]:
    """Yields the plain tensors inside a tensor: a DTensor's local shard, a quantized tensor's data and scales, a sparse
    tensor's values and indices.
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
    """Returns (device, address, bytes); a tensor without an address (meta) is identified by its id."""
    size = tensor.numel() * tensor.element_size()
    return str(tensor.device), _address(tensor) or id(tensor), size if tensor.device.type != "meta" else 0


def _address(tensor: torch.Tensor) -> int:
    try:
        return tensor.data_ptr()
    except (RuntimeError, NotImplementedError):  # the layout of a library (oneDNN)
        return 0
