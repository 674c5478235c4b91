"""Tokens of experts in a timed step: chosen by routers, passed to experts, and processed by this rank's experts.

Each router call leaves a small count on the device; counts are summed there and copied to the host once, at the step's
end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from distprof.external_exceptions import pass_on
from distprof.model.moe_layers import MoeLayer
from distprof.records import Array, ExpertLoad, ExpertRouting, LayerRouting, Record

#: Hides what runs inside it from the script's dispatch modes.
_NoModes: Any = getattr(torch._C, "_DisableTorchDispatch", nullcontext)
_ROUTED, _KEPT, _HANDED, _PROCESSED, _AUX_LOSS = "routed", "kept", "handed", "processed", "aux_loss"


@dataclass
class _LayerSums:
    """The counts of one layer in one iteration."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    aux_calls: int = 0
    called: bool = False
    misread: bool = False  # a reader failed: the counts are incomplete

    def add(self, name: str, counts: torch.Tensor | None) -> None:
        if counts is not None:
            so_far = self.sums.get(name)
            # The first count is copied: it may be a tensor of the script.
            self.sums[name] = counts.detach().clone() if so_far is None else so_far.add_(counts.detach())


class ExpertTally:
    """Counts tokens in the calls of some rows; :meth:`begin` starts an iteration, :meth:`finish` ends it."""

    def __init__(self, layers: Sequence[MoeLayer], window: int = 0) -> None:
        """``window`` is the number of the window, for the records."""
        self._layers = layers
        self._window = window
        #: Readers by row: called with the arguments before the row runs, and with its output after.
        self.entering: dict[int, list[Callable[[tuple[Any, ...]], None]]] = {}
        self.leaving: dict[int, list[Callable[[Any], None]]] = {}
        for number, layer in enumerate(layers):
            self._watch(number, layer)
        self.begin()

    def begin(self) -> None:
        self._rows: dict[int, int] = {}
        self._sums = [_LayerSums() for _ in self._layers]

    def entered(self, row: int, arguments: tuple[Any, ...]) -> None:
        """Reads the arguments of ``row`` of :attr:`entering`, which is about to run."""
        for read in self.entering[row]:
            read(arguments)

    def left(self, row: int, output: Any) -> None:
        """Reads the output of ``row`` of :attr:`leaving`, which has run."""
        for read in self.leaving[row]:
            read(output)

    def finish(self, iteration: int) -> Pending | None:
        """Starts to copy what was counted since :meth:`begin` to the host; None without layers."""
        if not self._layers:
            return None
        return Pending(iteration, self._window, self._layers, self._sums, self._rows)

    def _watch(self, number: int, layer: MoeLayer) -> None:
        if layer.is_counted and layer.read_processed is None:
            self._call_before(layer.row, lambda _: self._called(number))
            for row in layer.expert_rows:
                self._call_before(row, partial(self._count_rows, number, row))
        if layer.router >= 0 and layer.read_router is not None:
            self.leaving.setdefault(layer.router, []).append(partial(self._read_safely, _read_router, number))
        if layer.holder >= 0 and (layer.read_handed or layer.read_processed):
            self._call_before(layer.holder, partial(self._read_safely, _read_holder, number))

    def _call_before(self, row: int, read: Callable[[tuple[Any, ...]], None]) -> None:
        self.entering.setdefault(row, []).append(read)

    def _called(self, number: int) -> None:
        self._sums[number].called = True

    def _count_rows(self, number: int, row: int, arguments: tuple[Any, ...]) -> None:
        self._called(number)
        self._rows[row] = self._rows.get(row, 0) + _token_rows(arguments)

    def _read_safely(self, read: Callable[[MoeLayer, _LayerSums, Any], None], number: int, values: Any) -> None:
        """Calls a reader hidden from autograd and the script's modes, and marks the layer when it raises.  Nothing is
        read while a CUDA graph is captured: the graph would replay the reader.
        """
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            return
        try:
            with torch.inference_mode(False), torch.no_grad(), _NoModes():
                read(self._layers[number], self._sums[number], values)
        except Exception as error:
            pass_on(error)
            self._sums[number].misread = True


def _read_router(layer: MoeLayer, sums: _LayerSums, output: Any) -> None:
    choice = layer.read_router(output, layer.num_experts) if layer.read_router is not None else None
    if choice is not None:
        sums.add(_ROUTED, choice.routed)
        sums.add(_KEPT, choice.kept)
        if choice.aux_loss is not None:
            sums.add(_AUX_LOSS, choice.aux_loss.float().reshape(1))
            sums.aux_calls += 1


def _read_holder(layer: MoeLayer, sums: _LayerSums, arguments: tuple[Any, ...]) -> None:
    if layer.read_handed is not None:
        sums.add(_HANDED, layer.read_handed(arguments, layer.num_experts))
    if layer.read_processed is not None:
        sums.add(_PROCESSED, layer.read_processed(arguments, layer.local))


class Pending:
    """The counts of an ended iteration, readable as soon as a timestamp that was taken after them is."""

    def __init__(
        self,
        iteration: int,
        window: int,
        layers: Sequence[MoeLayer],
        sums: Sequence[_LayerSums],
        rows: dict[int, int],
    ) -> None:
        self._iteration = iteration
        self._window = window
        self._layers = layers
        self._sums = sums
        self._rows = rows
        self._read = _to_host([tensor for one in sums if not one.misread for tensor in one.sums.values()])

    def records(self) -> Iterator[Record]:
        arrays = iter(self._read())
        found = [{} if one.misread else {name: next(arrays) for name in one.sums} for one in self._sums]
        if any(layer.is_counted for layer in self._layers):
            yield self._load(found)
        layers = [self._layer_routing(number, one) for number, one in enumerate(found)]
        if any(layers):
            yield ExpertRouting(self._iteration, tuple(filter(None, layers)), self._window)

    def _load(self, found: list[dict[str, Array]]) -> ExpertLoad:
        tokens: list[Array] = []
        unseen = []
        for number, layer in enumerate(self._layers):
            if layer.is_counted:
                processed, seen = self._processed(layer, found[number], self._sums[number])
                tokens.append(processed)
                unseen += [] if seen else [number]
        return ExpertLoad(self._iteration, np.concatenate(tokens).astype("<i8"), tuple(unseen), self._window)

    def _processed(self, layer: MoeLayer, found: dict[str, Array], sums: _LayerSums) -> tuple[Array, bool]:
        if layer.read_processed is None:
            return np.array([self._rows.get(row, 0) for row in layer.expert_rows]), sums.called
        return found.get(_PROCESSED, np.zeros(layer.local)), _PROCESSED in found

    def _layer_routing(self, number: int, found: dict[str, Array]) -> LayerRouting | None:
        """Returns what the router of a layer chose; None if neither router nor experts were read."""
        routed, kept = found.get(_ROUTED), found.get(_KEPT, found.get(_HANDED))
        if routed is None and kept is None:
            return None
        dropped = None if routed is None or kept is None else routed - kept
        if dropped is not None and (dropped < 0).any():
            dropped = None
        calls = self._sums[number].aux_calls
        return LayerRouting(
            layer=number,
            routed=(kept if routed is None else routed).astype("<u4"),  # type: ignore[union-attr]
            drops_known=dropped is not None,
            dropped=(dropped if dropped is not None and dropped.any() else np.zeros(0)).astype("<u4"),
            aux_loss=(found[_AUX_LOSS] if calls and _AUX_LOSS in found else np.zeros(0)).astype("<f8"),
            aux_calls=calls if _AUX_LOSS in found else 0,
        )


def _to_host(tensors: Sequence[torch.Tensor]) -> Callable[[], list[Array]]:
    """Starts one copy for each device and dtype, without waiting; returns a function that reads the arrays."""
    places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        places.setdefault((tensor.device, tensor.dtype), []).append(index)
    with torch.no_grad():
        copies = [(indices, _copy(torch.cat([tensors[i] for i in indices]))) for indices in places.values()]
    lengths = [tensor.numel() for tensor in tensors]

    def read() -> list[Array]:
        arrays: dict[int, Array] = {}
        for indices, copy in copies:
            ends = np.cumsum([lengths[index] for index in indices])[:-1]
            arrays |= zip(indices, np.split(copy.numpy(), ends), strict=True)
        return [arrays[index] for index in range(len(lengths))]

    return read


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _token_rows(arguments: tuple[Any, ...]) -> int:
    """Returns the tokens in the first tensor of a call: the product of all dimensions but the last."""
    for value in arguments:
        if isinstance(value, torch.Tensor) and value.dim():
            return value.numel() // value.shape[-1] if value.shape[-1] else int(value.shape[0])
    return 0
