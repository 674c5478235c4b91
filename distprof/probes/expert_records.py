"""The counts of experts' tokens in one step, and the records made of them once they are on the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from distprof.model.moe_layers import MoeLayer
from distprof.probes.expert_rows import RowCounts, rows_in
from distprof.probes.host_copies import start_copies
from distprof.records import Array, ExpertLoad, ExpertRouting, LayerCalls, LayerRouting, Record
from distprof.tensors.device_counts import copied, is_made

ROUTED, KEPT, HANDED, PROCESSED, RECORDED, AUX_LOSS = "routed", "kept", "handed", "processed", "recorded", "aux_loss"
BUFFER, CAPACITY, COMPILED = "buffer", "capacity", "compiled"
#: Calls of a layer in one step that are counted one by one; generation may make thousands.
_MOST_CALLS = 128
#: Numbers of all layers by call in one record.
_MOST_NUMBERS = 1 << 18
_COUNTS, _LOSSES = np.dtype("<u4"), np.dtype("<f8")  # of the records
_NO_COUNTS: Array = np.zeros(0, _COUNTS)
_NO_LOSSES: Array = np.zeros(0, _LOSSES)
#: The counts of one layer on the host: by name, one array for each call.
_Found = Mapping[str, Sequence[Array]]


def rows_of(row: int) -> str:
    """Returns the name of the count of rows of one expert that are no padding."""
    return f"rows of {row}"


@dataclass
class LayerSums:
    """The counts of one layer in one iteration: on the device by name, call after call, and those that shapes show."""

    counts: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    rows: RowCounts | None = None  # of the inputs of experts in a list, in the call that runs
    rows_by_call: list[Array] = field(default_factory=list)  # the same of ended calls, by expert
    too_many: bool = False  # calls: the first of them are one
    choices: int = 0  # of routers, where their output may lack some
    must_be_all: bool = False  # a reader guessed the form of a router's output
    aux_calls: int = 0
    slots: int = 0  # the capacity of an expert, as far as the host knows it
    unlimited: bool = False  # a call showed no capacity
    called: bool = False  # the layer, whose experts are in a list
    by_value: bool = False  # rows of zeros are left out
    misread: bool = False  # a reader failed: the counts are incomplete
    unclear: bool = False  # calls of experts in a list do not show how many rows of their input they process
    buffer_before: torch.Tensor | None = None  # the layer's own count when its model was called
    compiled_choices: int = 0  # in compiled code
    hidden: bool = False  # a compiled graph has the router, and does not show its choices
    uncopied: list[tuple[torch.Tensor, int]] = field(default_factory=list)  # of the script, with their versions

    def add(self, name: str, counts: torch.Tensor | None) -> None:
        """Adds what one call counted, under one of the names of this module; None adds nothing."""
        if counts is None:
            return
        # A count that no reader has made is copied: it may be a tensor of the script.
        own = counts if is_made(counts) else counts.detach().clone()
        own = own if own.dim() else own.reshape(1)
        calls = self.counts.get(name)
        if calls is None:
            self.counts[name] = [own]
        elif len(calls) < _MOST_CALLS:
            calls.append(own)
        else:
            calls[0], self.too_many = calls[0] + own, True

    def add_capacity(self, capacity: int | torch.Tensor) -> None:
        """Adds how many choices of one call an expert can take; 0 stands for no limit, or one that is not known."""
        if isinstance(capacity, torch.Tensor):
            self.add(CAPACITY, capacity if is_made(capacity) else copied(capacity))
        elif capacity:
            self.slots += capacity
        else:
            self.unlimited = True

    def begin_call(self) -> None:
        """Begins a call of the layer, whose experts are in a list."""
        if not self.was_called:
            self.called = True
        elif len(self.rows_by_call) < _MOST_CALLS:
            self._end_call()
        else:
            self.too_many = True

    @property
    def was_called(self) -> bool:
        """Whether the layer, or one of its experts in a list, was called."""
        return self.called or (self.rows is not None and self.rows.called)

    def finish(self) -> None:
        """Ends the step: the rows of the next one are not this one's, and what the script has changed is not known."""
        self.misread = self.misread or any(tensor._version != version for tensor, version in self.uncopied)
        self.called = self.was_called
        self._end_call()

    def _end_call(self) -> None:
        if self.rows is not None:
            self.rows_by_call.append(rows_in(self.rows.take()))


class Pending:
    """The counts of an ended iteration, readable as soon as a timestamp that was taken after them is."""

    def __init__(
        self,
        iteration: int,
        window: int,
        layers: Sequence[MoeLayer],
        sums: Sequence[LayerSums],
        padded: set[int],
        met: set[int],
        uneven: set[int],
    ) -> None:
        """To ``padded`` the layers are added whose experts may have got padding, to ``met`` those that called one, and
        to ``uneven`` those whose experts got unequal numbers of rows.
        """
        self._iteration = iteration
        self._window = window
        self._layers = [*layers]
        self._sums = sums
        self._padded, self._met, self._uneven = padded, met, uneven
        for one in sums:
            one.finish()
        calls = [calls for one in sums if not one.misread for calls in one.counts.values()]
        self._read = start_copies([tensor for one in calls for tensor in one])

    def records(self) -> Iterator[Record]:
        """Yields the ExpertLoad and the ExpertRouting of the iteration, as far as there are any."""
        arrays = iter(self._read())
        found: list[_Found] = [
            {} if one.misread else {name: [next(arrays) for _ in calls] for name, calls in one.counts.items()}
            for one in self._sums
        ]
        sums = [{name: _total(calls) for name, calls in one.items()} for one in found]
        for layer, one in zip(self._sums, sums, strict=True):
            if layer.must_be_all and ROUTED in one and int(one[ROUTED].sum()) != layer.choices:
                layer.choices = 0
                one.pop(ROUTED), one.pop(KEPT, None)  # the output has another form
        if any(layer.is_counted for layer in self._layers):
            yield self._load(sums, found)
        layers = [self._layer_routing(number, one) for number, one in enumerate(sums)]
        if any(layers):
            routings = self._with_calls([one for one in layers if one is not None], sums, found)
            yield ExpertRouting(self._iteration, tuple(routings), self._window)

    def _load(self, sums: Sequence[Mapping[str, Array]], found: Sequence[_Found]) -> ExpertLoad:
        tokens: list[Array] = []
        unseen = []
        calls = []
        for number, layer in enumerate(self._layers):
            if layer.is_counted:
                in_list = layer.read_processed is None
                rows = self._sums[number].rows_by_call if in_list else found[number].get(PROCESSED, ())
                processed, seen = self._processed(number, layer, sums[number], found[number], rows)
                tokens.append(processed)
                unseen += [] if seen else [number]
                calls += self._calls(number, rows) if seen and len(rows) > 1 else []
        every = np.concatenate(tokens).astype("<i8")
        return ExpertLoad(self._iteration, every, tuple(unseen), self._window, tuple(calls))

    def _calls(self, number: int, rows: Sequence[Array]) -> list[LayerCalls]:
        """Returns what local experts processed call by call; nothing where that is not known."""
        sums = self._sums[number]
        if sums.too_many or sums.by_value:
            return []
        calls = np.stack(rows)
        hottest = calls.argmax(axis=1)
        largest = calls[np.arange(len(calls)), hottest]
        return [LayerCalls(number, calls.sum(axis=1).astype("<u4"), largest.astype("<u4"), hottest.astype("<u4"))]

    def _processed(
        self, number: int, layer: MoeLayer, found: Mapping[str, Array], calls: _Found, by_call: Sequence[Array]
    ) -> tuple[Array, bool]:
        """Returns the tokens of the local experts, and whether they were seen.

        ``found`` are the sums of ``calls``; ``by_call`` has the rows that experts in a list got.
        """
        sums = self._sums[number]
        if layer.read_processed is not None:
            return found.get(PROCESSED, np.zeros(layer.local)), PROCESSED in found
        rows = _total(by_call) if by_call else np.zeros(layer.local, np.int64)
        chosen = found.get(ROUTED)
        if sums.unclear:
            return rows, False
        if not rows.any():
            # Experts may be called in a way that is not seen, or have no tokens: all cannot, unless none was chosen,
            # or others live on other ranks.
            none_chosen = chosen is not None and not chosen.any()
            return rows, sums.called and (none_chosen if layer.ways == 1 else number in self._met)
        self._met.add(number)
        if sums.by_value:
            filled = [found[rows_of(row)].item() if rows_of(row) in found else 0 for row in layer.expert_rows]
            return np.array(filled), not sums.misread
        if self._are_uneven(number, rows) or len(rows) == 1 or (chosen is not None and chosen.sum() == rows.sum()):
            return rows, True
        fit = layer.ways == 1 and _are_chosen(by_call, calls.get(ROUTED, ()))
        if not fit and np.count_nonzero(rows) > 1:
            self._padded.add(number)  # as many rows for each may be padding
        return rows, fit

    def _are_uneven(self, number: int, rows: Array) -> bool:
        """Whether experts got unequal numbers of rows, or did so in an earlier step.

        Else these may be padding; and where one expert alone was called, it may stand for all, with torch.vmap.
        """
        if np.count_nonzero(rows) > 1 and (rows != rows[0]).any():
            self._uneven.add(number)
        return number in self._uneven

    def _layer_routing(self, number: int, found: Mapping[str, Array]) -> LayerRouting | None:
        """Returns what the router of a layer chose; None if neither router nor experts were read."""
        sums = self._sums[number]
        routed, kept = found.get(ROUTED), found.get(_kept_name(found))
        if COMPILED in found:
            if not sums.hidden and int(found[COMPILED].sum()) == sums.compiled_choices:
                routed = found[COMPILED] if routed is None else routed + found[COMPILED]
                if kept is None and not self._layers[number].may_drop:
                    routed, kept = None, routed  # these are the tokens that its experts get
            elif routed is not None:
                return None  # some choices were not seen, or are no ids of experts
        if routed is None and kept is None:
            kept = _counts_of_buffer(found.get(BUFFER))
        if routed is None and kept is None:
            return None
        if routed is None and RECORDED in found:
            routed = kept  # the script counts what experts get
        dropped = _dropped(routed, kept)
        lost = sums.choices - int(routed.sum()) if routed is not None and sums.choices else 0
        if lost < 0:
            return None  # the output has another form
        calls = sums.aux_calls
        return LayerRouting(
            layer=number,
            routed=(kept if routed is None else routed).astype(_COUNTS),  # type: ignore[union-attr]
            drops_known=dropped is not None,
            dropped=dropped.astype(_COUNTS) if dropped is not None and dropped.any() else _NO_COUNTS,
            aux_loss=found[AUX_LOSS].astype(_LOSSES) if calls and AUX_LOSS in found else _NO_LOSSES,
            aux_calls=calls if AUX_LOSS in found else 0,
            lost=lost,
            handed=routed is None,
            capacity=0 if sums.unlimited else sums.slots + int(found[CAPACITY].sum() if CAPACITY in found else 0),
        )

    def _with_calls(
        self, routings: Sequence[LayerRouting], sums: Sequence[Mapping[str, Array]], found: Sequence[_Found]
    ) -> Iterator[LayerRouting]:
        """Yields the routings, those of layers that are not counted with what was kept call by call.

        Of all layers or of none: calls of some alone are not compared.
        """
        calls = {}
        for one in routings:
            own = found[one.layer]
            kept = own.get(_kept_name(sums[one.layer]), ())
            if len(kept) < 2 or self._layers[one.layer].is_counted or self._sums[one.layer].too_many:
                continue
            if (one.drops_known or one.handed) and len(own.get(ROUTED, kept)) == len(kept):
                calls[one.layer] = np.concatenate(kept).astype("<u4")
        fits = sum(map(len, calls.values())) <= _MOST_NUMBERS
        for one in routings:
            yield replace(one, kept_by_call=calls[one.layer]) if fits and one.layer in calls else one


def _total(calls: Sequence[Array]) -> Array:
    return calls[0] if len(calls) == 1 else np.sum(calls, axis=0)


def _are_chosen(rows: Sequence[Array], routed: Sequence[Array]) -> bool:
    """Whether at least as many tokens chose each expert as it got rows, in each call."""
    return len(rows) == len(routed) and all((own <= chosen).all() for own, chosen in zip(rows, routed, strict=True))


def _dropped(routed: Array | None, kept: Array | None) -> Array | None:
    """Returns how many choices of each expert were dropped, no numbers where none was; None where it is not known."""
    if routed is None or kept is None:
        return None
    if routed is kept:  # the experts got the ids that the router returned
        return _NO_COUNTS
    dropped = routed - kept
    return None if (dropped < 0).any() else dropped


def _kept_name(found: Mapping[str, Array]) -> str:
    """Returns the name of the counts of choices that were not dropped, the most trusted first."""
    return RECORDED if RECORDED in found else KEPT if KEPT in found else HANDED


def _counts_of_buffer(added: Array | None) -> Array | None:
    """Returns what a forward added to the buffer in which a layer counts; None where these are no numbers of tokens."""
    if added is None or not added.any() or (added < 0).any() or (added != np.rint(added)).any():
        return None
    return added.astype(np.int64)
