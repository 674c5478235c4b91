"""The work of one iteration: micro-batches, batch size, samples, and how the batch size was found."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from distprof.model.batch_order import BatchOrder
from distprof.tensors.nested_tensors import call_tensors

_MAX_DEPTH = 2  # of nested lists in an argument

#: Types of the ids of tokens: the first tensor that a model is given holds them if it has two dimensions.
_IDS = frozenset({torch.int64, torch.int32})

#: How batch size was found.
BATCH_FIRST = "dimension 0 of the first tensor that the model is given"
BATCH_SECOND = "dimension 1 of the first tensor that the model is given: modules in it take sequences first"
ONE_IN_CLOSURES = ", which the optimizer's closure works on several times"
VIEWS = ", whose batches from the DataLoader it sees several times"
#: Why it was not found.
NO_BATCH = "no tensor was seen among the inputs of the model"
UNKNOWN_ORDER = "modules in the model take sequences first, and whether the model does is seen in a counted step only"
DIFFERENT_IN_CLOSURES = "an optimizer's closure ran the model on several tensors, which may be one batch or several"
SHARED_OR_NOT = "the model ran more often than backward did, on what may be one batch or several"


class Work(NamedTuple):
    """The work of one iteration.  ``batch_size`` is that of one micro-batch; it and ``samples`` are 0 where unknown;
    ``found`` says how they were found, or why not.  ``tokens`` are the ids of the samples, 0 where these are no ids.
    """

    micro_batches: int
    batch_size: int
    samples: int
    found: str
    tokens: int = 0


@dataclass
class _Calls:
    root: int
    calls: int = 0
    first: tuple[int, int] = (0, 0)  # sizes of dimensions 0 and 1, as in all pairs here
    samples: tuple[int, int] = (0, 0)
    tokens: int = 0
    updating: int = 0  # calls in an optimizer's step
    again: int = 0  # of these, calls with the same batch as the call before
    batch: weakref.ref[torch.Tensor] | None = None  # of the last call in an optimizer's step


#: Returns the state of torch.jit.trace, None while nothing is traced.
_tracing = getattr(torch._C, "_get_tracing_state", lambda: None)


class BatchTally:
    """Counts the forwards of each root model and the backward passes of one iteration.

    The batch size is dimension 0 of the first tensor that a root gets, or dimension 1 (:class:`BatchOrder`).  The root
    that is called least often gives the number of micro-batches (a GAN's generator, not its discriminator, which gets
    real and fake data).  If it is called more often than backward runs, its inputs may be views of one batch or
    separate batches: the number of loaded batches decides, if it is known.
    """

    def __init__(self, order: BatchOrder | None = None) -> None:
        self._order = order or BatchOrder()
        self._roots: dict[int, _Calls] = {}
        self._backwards = 0
        self.loads = 0  # loaded batches: waits for a DataLoader
        self.updating = 0  # running optimizer steps, nested ones too

    def forward(self, root: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Counts a forward of ``root`` that begins, unless torch traces it: reading a size would
        then issue a warning.
        """
        if _tracing() is not None:
            return
        tally = self._roots.get(root) or self._roots.setdefault(root, _Calls(root))
        tensor = args[0] if args and type(args[0]) is torch.Tensor and args[0].dim() else first_tensor(args, kwargs)
        tally.calls += 1
        if tensor is None:
            return
        if self.updating and self._was_given(tally, tensor):
            return
        size = sizes(tensor)
        tally.samples = (tally.samples[0] + size[0], tally.samples[1] + size[1])
        if tensor.dtype in _IDS and tensor.dim() == 2:
            tally.tokens += tensor.numel()
        if tally.first == (0, 0):
            tally.first = size

    def _was_given(self, tally: _Calls, tensor: torch.Tensor) -> bool:
        """Returns whether an optimizer's closure gets the same batch as in its call before."""
        before = tally.batch and tally.batch()
        tally.batch = weakref.ref(tensor)
        tally.updating += 1
        tally.again += before is tensor
        return before is tensor

    def backward(self) -> None:
        """Counts a backward pass that begins."""
        self._backwards += 1

    def work(self) -> Work:
        roots = self._roots.values()
        if len(roots) == 1:  # the usual case, at the end of every timed step
            (smallest,) = roots
        else:
            smallest = min(roots, key=attrgetter("calls"), default=_Calls(-1))
        micro_batches = min(smallest.calls, self._backwards) if self._backwards else smallest.calls
        second = smallest.root in self._order.second
        size, samples, tokens = smallest.first[second], smallest.samples[second], smallest.tokens
        found = BATCH_SECOND if second else BATCH_FIRST
        if why := self._why_not(smallest, micro_batches):
            return Work(micro_batches, 0, 0, why)
        if smallest.again:
            found += ONE_IN_CLOSURES
        elif smallest.calls > micro_batches:
            samples, tokens = (round(all_calls / smallest.calls * micro_batches) for all_calls in (samples, tokens))
            found += VIEWS
        return Work(micro_batches, size, samples, found, tokens)

    def _why_not(self, smallest: _Calls, micro_batches: int) -> str:
        """Returns why the batches of this root are unknown, or an empty string."""
        if not smallest.first[0]:
            return NO_BATCH
        if smallest.root in self._order.unknown:
            return UNKNOWN_ORDER
        if smallest.updating > 1:
            return "" if smallest.again == smallest.updating - 1 == smallest.calls - 1 else DIFFERENT_IN_CLOSURES
        return SHARED_OR_NOT if smallest.calls > micro_batches and not 0 < self.loads <= micro_batches else ""


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """Returns the first tensor with a dimension in a module's arguments, also inside lists, tuples and dicts."""
    given = chain(call_tensors(args, _MAX_DEPTH), call_tensors(dict.values(kwargs), _MAX_DEPTH))
    return next((tensor for tensor in given if tensor.dim()), None)


def shape(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Size | None:
    """Returns the shape of this tensor; None for a nested tensor, which has none."""
    tensor = first_tensor(args, kwargs)
    return None if tensor is None or tensor.is_nested else tensor.shape


def sizes(tensor: torch.Tensor) -> tuple[int, int]:
    """Returns the sizes of dimensions 0 and 1; dimension 0 twice if there is no other, or if it has
    no one size (nested).
    """
    first = int(tensor.size(0))
    return first, first if tensor.dim() < 2 or tensor.is_nested else int(tensor.size(1))
