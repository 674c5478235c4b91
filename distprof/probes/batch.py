"""How much work one iteration did: micro-batches, batch size, samples, and how the batch size was found."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from distprof.model.batch_order import BatchOrder
from distprof.probes.tensors import tensors

_MAX_DEPTH = 2  # of lists in an argument

#: How batch size was found.
BATCH_FIRST = "dimension 0 of the first tensor that the model is given"
BATCH_SECOND = "dimension 1 of the first tensor that the model is given: modules in it take sequences first"
ONE_IN_CLOSURES = ", which the optimizer's closure works on several times"
VIEWS = ", whose batches from the DataLoader it sees several times"
#: Why it was not.
NO_BATCH = "no tensor was seen among the inputs of the model"
UNKNOWN_ORDER = "modules in the model take sequences first, and whether the model does is seen in a counted step only"
DIFFERENT_IN_CLOSURES = "an optimizer's closure ran the model on several tensors, which may be one batch or several"
SHARED_OR_NOT = "the model ran more often than backward did, on what may be one batch or several"


class Work(NamedTuple):
    """Of one iteration.  ``batch_size`` is that of one micro-batch, and 0 as ``samples`` is where they cannot be told;
    ``found``: how they were, or why not.
    """

    micro_batches: int
    batch_size: int
    samples: int
    found: str


@dataclass
class _Calls:
    root: int
    calls: int = 0
    first: tuple[int, int] = (0, 0)  # by either dimension, as all pairs here
    samples: tuple[int, int] = (0, 0)
    updating: int = 0  # calls in an optimizer's step
    again: int = 0  # those of them with the batch of the one before
    batch: weakref.ref[torch.Tensor] | None = None  # of the last call in an optimizer's step


#: What torch traces with (``torch.jit.trace``), None while it does not.
_tracing = getattr(torch._C, "_get_tracing_state", lambda: None)


class BatchTally:
    """Tallies the forwards of each root model and the backward passes of one iteration.

    Batch size is dimension 0 of the first tensor that a root is given, or dimension 1 (:class:`BatchOrder`).  Of
    several models the one called least often tells the micro-batches (a GAN's generator, not its discriminator, which
    sees real and fake).  Where it ran more often than backward passes did, what it was given may be views of one batch,
    or batches of their own: the number of batches that were loaded may tell.
    """

    def __init__(self, order: BatchOrder | None = None) -> None:
        self._order = order or BatchOrder()
        self._roots: dict[int, _Calls] = {}
        self._backwards = 0
        self.loads = 0  # batches that were waited for
        self.updating = 0  # optimizers that step now, one within the other

    def forward(self, root: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward of root ``root`` begins.  One that torch traces is none: who asks for its size is warned."""
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
        if tally.first == (0, 0):
            tally.first = size

    def _was_given(self, tally: _Calls, tensor: torch.Tensor) -> bool:
        """Whether an optimizer's closure works on the batch that it had before."""
        before = tally.batch and tally.batch()
        tally.batch = weakref.ref(tensor)
        tally.updating += 1
        tally.again += before is tensor
        return before is tensor

    def backward(self) -> None:
        """A backward pass begins."""
        self._backwards += 1

    def work(self) -> Work:
        roots = self._roots.values()
        if len(roots) == 1:  # nearly always, and asked at the end of every timed step
            (teller,) = roots
        else:
            teller = min(roots, key=attrgetter("calls"), default=_Calls(-1))
        micro_batches = min(teller.calls, self._backwards) if self._backwards else teller.calls
        second = teller.root in self._order.second
        size, samples = teller.first[second], teller.samples[second]
        found = BATCH_SECOND if second else BATCH_FIRST
        if why := self._why_not(teller, micro_batches):
            return Work(micro_batches, 0, 0, why)
        if teller.again:
            found += ONE_IN_CLOSURES
        elif teller.calls > micro_batches:
            samples, found = round(samples / teller.calls * micro_batches), found + VIEWS
        return Work(micro_batches, size, samples, found)

    def _why_not(self, teller: _Calls, micro_batches: int) -> str:
        """What keeps its batches from being told, or empty."""
        if not teller.first[0]:
            return NO_BATCH
        if teller.root in self._order.unknown:
            return UNKNOWN_ORDER
        if teller.updating > 1:
            return "" if teller.again == teller.updating - 1 == teller.calls - 1 else DIFFERENT_IN_CLOSURES
        return SHARED_OR_NOT if teller.calls > micro_batches and not 0 < self.loads <= micro_batches else ""


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The first one with a dimension among what a module is given, in lists, tuples and dicts, too."""
    given = chain(tensors(args, _MAX_DEPTH), tensors(dict.values(kwargs), _MAX_DEPTH))
    return next((tensor for tensor in given if tensor.dim()), None)


def shape(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Size | None:
    """Of that tensor; nested ones have none."""
    tensor = first_tensor(args, kwargs)
    return None if tensor is None or tensor.is_nested else tensor.shape


def sizes(tensor: torch.Tensor) -> tuple[int, int]:
    """Of its first two dimensions, of its first one twice where it has no other; one of nested tensors is no number."""
    first = int(tensor.size(0))
    return first, first if tensor.dim() < 2 or tensor.is_nested else int(tensor.size(1))
