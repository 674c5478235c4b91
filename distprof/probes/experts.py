"""Tokens of experts in a step: chosen by routers, passed to experts, and processed by this rank's experts.

Each router call leaves a small count on the device; all counts are copied to the host together, at the step's end.  The
rows of experts in a list are known from shapes alone.  Where all of them got as many, they may be padded to their
capacity: from the next step on, rows of zeros are left out.  Where only one of them was called, it may stand for all.
Neither is so where as many tokens chose each, or where they got unequal numbers of rows in an earlier step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from distprof.external_exceptions import pass_on
from distprof.frameworks.protocol import Routing
from distprof.frameworks.routing_readers import count_by_expert
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.model.moe_layers import MoeLayer
from distprof.probes.expert_records import (
    AUX_LOSS,
    BUFFER,
    COMPILED,
    HANDED,
    KEPT,
    PROCESSED,
    RECORDED,
    ROUTED,
    LayerSums,
    Pending,
    rows_of,
)
from distprof.probes.expert_rows import Reader, RowCounts, row_counts, rows_of_call, tensors_of_call
from distprof.tensors.device_counts import copied

#: Hides what runs inside it from the script's dispatch modes.
_NoModes: Any = getattr(torch._C, "_DisableTorchDispatch", nullcontext)


class ExpertTally:
    """Counts tokens in the calls of some rows; :meth:`begin` starts an iteration, :meth:`finish` ends it."""

    def __init__(self, layers: Sequence[MoeLayer], window: int = 0) -> None:
        """``window`` is the number of the window, for the records."""
        self.layers = [*layers]
        self._window = window
        self._padded: set[int] = set()  # layers whose experts may get rows of padding, as an earlier step shows
        self._met: set[int] = set()  # layers of which an expert was called
        self._uneven: set[int] = set()  # layers whose experts got unequal numbers of rows in an earlier step
        #: Readers by row: called with its args and kwargs before the row runs, and with its output after.
        self.entering: dict[int, Reader] = {}
        self.leaving: dict[int, Callable[[Any], None]] = {}
        self._rows: dict[int, RowCounts] = {}  # by the number of a layer with experts in a list
        for number, layer in enumerate(layers):
            self._watch(number, layer)
        self.begin()

    def begin(self) -> None:
        """Starts an iteration: nothing has been counted in it."""
        self._sums = [self._begin_layer(number) for number in range(len(self.layers))]

    def _begin_layer(self, number: int) -> LayerSums:
        by_value, rows = number in self._padded, self._rows.get(number)
        if rows is not None:
            rows.begin(by_value)
        return LayerSums(by_value=by_value, rows=rows)

    def record(self, layers: Sequence[MoeLayer], number: int, counts: Any) -> None:
        """Adds tokens by global expert that the script itself has counted in layer ``number`` of ``layers``, which may
        have grown since the tally was made.
        """
        more = layers[len(self.layers) :]
        self.layers += more
        self._sums += [LayerSums() for _ in more]
        self._read_safely(_read_recorded, number, counts)

    def add_compiled(self, number: int, ids: torch.Tensor | None) -> None:
        """Adds the ids (of any shape) that a router in compiled code chose; None where its graph does not show them."""
        if ids is None:
            self._sums[number].hidden = True
        else:
            self._read_safely(_read_compiled, number, ids)

    def finish(self, iteration: int) -> Pending | None:
        """Starts to copy what was counted since :meth:`begin` to the host; None without layers."""
        if not self.layers:
            return None
        return Pending(iteration, self._window, self.layers, self._sums, self._padded, self._met, self._uneven)

    def _watch(self, number: int, layer: MoeLayer) -> None:
        if layer.is_counted and layer.read_processed is None:
            self._call_before(layer.row, partial(self._called, number))
            counts = self._rows[number] = row_counts(len(layer.expert_rows))
            for place, row in enumerate(layer.expert_rows):
                self._call_before(row, counts.reader(place, partial(self._count_rows, number, place)))
        if layer.router >= 0 and layer.read_router is not None:
            read, before = partial(self._router_left, number), self.leaving.get(layer.router)
            self.leaving[layer.router] = read if before is None else _both(before, read)
        if layer.read_buffer is not None:
            self._call_before(layer.model_row, partial(self._model_entered, number))
            read, before = partial(self._model_left, number), self.leaving.get(layer.model_row)
            self.leaving[layer.model_row] = read if before is None else _both(before, read)
        if layer.holder >= 0 and (layer.read_handed or layer.read_processed):
            self._call_before(layer.holder, partial(self._holder_entered, number))

    def _call_before(self, row: int, read: Reader) -> None:
        before = self.entering.get(row)
        self.entering[row] = read if before is None else _both(before, read)

    @hidden_from_dynamo
    def _called(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._sums[number].begin_call()

    @hidden_from_dynamo
    def _count_rows(self, number: int, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sums = self._sums[number]
        tensors = tensors_of_call(args, kwargs)
        self._rows[number].add(place, rows_of_call(tensors))
        sums.unclear = sums.unclear or _may_select(tensors) or _is_vmapped()
        if sums.by_value and tensors:
            row = self.layers[number].expert_rows[place]
            self._read_safely(partial(_read_filled_rows, row), number, tensors[0])

    @hidden_from_dynamo
    def _router_left(self, number: int, output: Any) -> None:
        self._read_safely(_read_router, number, output)

    @hidden_from_dynamo
    def _model_entered(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._read_safely(_keep_buffer, number, None)

    @hidden_from_dynamo
    def _model_left(self, number: int, output: Any) -> None:
        self._read_safely(_read_buffer, number, None)

    @hidden_from_dynamo
    def _holder_entered(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._read_safely(_read_holder, number, (*args, *kwargs.values()))

    def _read_safely(self, read: Callable[[MoeLayer, LayerSums, Any], None], number: int, values: Any) -> None:
        """Calls a reader hidden from the script's modes, and marks the layer when it raises."""
        if not read_hidden(read, self.layers[number], self._sums[number], values):
            self._sums[number].misread = True


def read_hidden(read: Callable[..., None], *values: Any) -> bool:
    """Calls a reader hidden from the script's modes; returns whether it did not raise.

    Nothing is read while a CUDA graph is captured: the graph would replay the reader.

    Autograd stays on, because an exception from outside might leave it off: what is read are integers, or detached.
    """
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        return True
    try:
        if not torch._C._len_torch_dispatch_stack() and not torch._C._len_torch_function_stack():
            _read_outside_inference(read, values)
        else:
            with torch._C.DisableTorchFunction(), _NoModes():
                _read_outside_inference(read, values)
    except Exception as error:
        pass_on(error)
        return False
    return True


def _read_outside_inference(read: Callable[..., None], values: tuple[Any, ...]) -> None:
    if not torch.is_inference_mode_enabled():
        read(*values)
    else:
        with torch.inference_mode(False):
            read(*values)


def _both(first: Callable[..., None], second: Callable[..., None]) -> Callable[..., None]:
    """Returns a reader that calls two: a module may be a part of several layers."""

    @hidden_from_dynamo
    def read(*values: Any) -> None:
        first(*values)
        second(*values)

    return read


def _read_router(layer: MoeLayer, sums: LayerSums, output: Any) -> None:
    choice = layer.read_router(output, layer.num_experts) if layer.read_router is not None else None
    if choice is not None:
        _add_choice(sums, choice)


def _add_choice(sums: LayerSums, choice: Routing) -> None:
    sums.add(ROUTED, choice.routed)
    sums.add(KEPT, choice.kept)
    sums.choices += choice.choices
    sums.add_capacity(choice.capacity)
    sums.uncopied += [(tensor, tensor._version) for tensor in choice.uncopied]
    sums.must_be_all = sums.must_be_all or choice.must_be_all
    if choice.aux_loss is not None:
        sums.add(AUX_LOSS, choice.aux_loss)
        sums.aux_calls += 1


def _read_holder(layer: MoeLayer, sums: LayerSums, arguments: tuple[Any, ...]) -> None:
    if layer.read_handed is not None:
        handed = layer.read_handed(arguments, layer.num_experts)
        if isinstance(handed, Routing):
            _add_choice(sums, handed)
        else:
            sums.add(HANDED, handed)
    if layer.read_processed is not None:
        sums.add(PROCESSED, layer.read_processed(arguments, layer.local))


def _keep_buffer(layer: MoeLayer, sums: LayerSums, _: Any) -> None:
    buffer = layer.read_buffer() if layer.read_buffer is not None else None
    sums.buffer_before = None if buffer is None else buffer.detach().clone()


def _read_buffer(layer: MoeLayer, sums: LayerSums, _: Any) -> None:
    """Adds what a forward has added to the buffer; what recomputing adds in backward is not counted."""
    buffer = layer.read_buffer() if layer.read_buffer is not None else None
    before, sums.buffer_before = sums.buffer_before, None
    if buffer is not None and before is not None:
        sums.add(BUFFER, buffer.detach() - before)


def _read_recorded(layer: MoeLayer, sums: LayerSums, counts: Any) -> None:
    given = torch.as_tensor(counts).reshape(-1)
    if given.numel() != layer.num_experts:
        raise ValueError(f"{given.numel()} counts for {layer.num_experts} experts")
    sums.add(RECORDED, copied(given))


def _read_compiled(layer: MoeLayer, sums: LayerSums, ids: torch.Tensor) -> None:
    sums.add(COMPILED, count_by_expert(ids, layer.num_experts))
    sums.compiled_choices += ids.numel()


def _read_filled_rows(row: int, layer: MoeLayer, sums: LayerSums, tokens: torch.Tensor) -> None:
    """Counts the rows of an expert's input that are not all zeros."""
    filled = (tokens.detach() != 0).reshape(-1, tokens.shape[-1]).any(-1).sum().reshape(1)
    sums.add(rows_of(row), filled)


def _may_select(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether an expert may process some of its first tensor's rows only: it has ids or a mask beside it."""
    return len(tensors) > 1 and not all(tensor.is_floating_point() for tensor in tensors)


def _is_vmapped() -> bool:
    """Whether one call stands for several: experts whose weights were stacked are called as the first of them."""
    every = torch._C._functorch.get_interpreter_stack() or ()
    return any(one.key() == torch._C._functorch.TransformType.Vmap for one in every)
