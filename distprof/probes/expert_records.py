"""The counts of experts' tokens in one step, and the records made of them once they are on the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from distprof.frameworks.routing_readers import is_last_count
from distprof.model.moe_layers import MoeLayer
from distprof.probes.host_copies import start_copies
from distprof.records import Array, ExpertLoad, ExpertRouting, LayerRouting, Record

ROUTED, KEPT, HANDED, PROCESSED, RECORDED, AUX_LOSS = "routed", "kept", "handed", "processed", "recorded", "aux_loss"
BUFFER = "buffer"


def rows_of(row: int) -> str:
    """Returns the name of the count of rows of one expert that are no padding."""
    return f"rows of {row}"


@dataclass
class LayerSums:
    """The counts of one layer in one iteration, on the device by name, and those that shapes show."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)  # by row of an expert: rows of its inputs
    choices: int = 0  # of routers, where their output may lack some
    must_be_all: bool = False  # a reader guessed the form of a router's output
    aux_calls: int = 0
    called: bool = False
    by_value: bool = False  # rows of zeros are left out
    misread: bool = False  # a reader failed: the counts are incomplete
    buffer_before: torch.Tensor | None = None  # the layer's own count when its model was called

    def add(self, name: str, counts: torch.Tensor | None) -> None:
        if counts is None:
            return
        so_far = self.sums.get(name)
        if so_far is not None:
            self.sums[name] = so_far + counts.detach()
        else:
            # A count that no reader has made is copied: it may be a tensor of the script.
            self.sums[name] = counts if is_last_count(counts) else counts.detach().clone()


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
    ) -> None:
        """To ``padded`` the layers are added whose experts may have got padding, to ``met`` those that called one."""
        self._iteration = iteration
        self._window = window
        self._layers = [*layers]
        self._sums = sums
        self._padded, self._met = padded, met
        self._read = start_copies([tensor for one in sums if not one.misread for tensor in one.sums.values()])

    def records(self) -> Iterator[Record]:
        arrays = iter(self._read())
        found = [{} if one.misread else {name: next(arrays) for name in one.sums} for one in self._sums]
        for sums, one in zip(self._sums, found, strict=True):
            if sums.must_be_all and ROUTED in one and int(one[ROUTED].sum()) != sums.choices:
                sums.choices = 0
                one.pop(ROUTED), one.pop(KEPT, None)  # the output has another form
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
                processed, seen = self._processed(number, layer, found[number])
                tokens.append(processed)
                unseen += [] if seen else [number]
        return ExpertLoad(self._iteration, np.concatenate(tokens).astype("<i8"), tuple(unseen), self._window)

    def _processed(self, number: int, layer: MoeLayer, found: Mapping[str, Array]) -> tuple[Array, bool]:
        """Returns the tokens of the local experts, and whether they were seen."""
        sums = self._sums[number]
        if layer.read_processed is not None:
            return found.get(PROCESSED, np.zeros(layer.local)), PROCESSED in found
        rows = np.array([sums.rows.get(row, 0) for row in layer.expert_rows])
        chosen = found.get(ROUTED)
        if not rows.any():
            # Experts may be called in a way that is not seen, or have no tokens: all cannot, unless none was chosen,
            # or others live on other ranks.
            none_chosen = chosen is not None and not chosen.any()
            return rows, sums.called and (none_chosen if layer.ways == 1 else number in self._met)
        self._met.add(number)
        if sums.by_value:
            filled = [found[rows_of(row)].item() if rows_of(row) in found else 0 for row in layer.expert_rows]
            return np.array(filled), not sums.misread
        if len(rows) > 1 and (rows == rows[0]).all() and (chosen is None or chosen.sum() != rows.sum()):
            self._padded.add(number)
            return rows, False
        return rows, True

    def _layer_routing(self, number: int, found: Mapping[str, Array]) -> LayerRouting | None:
        """Returns what the router of a layer chose; None if neither router nor experts were read."""
        sums = self._sums[number]
        routed, kept = found.get(ROUTED), found.get(RECORDED, found.get(KEPT, found.get(HANDED)))
        if routed is None and kept is None:
            kept = _counts_of_buffer(found.get(BUFFER))
        if routed is None and kept is None:
            return None
        if routed is None and RECORDED in found:
            routed = kept  # the script counts what experts get
        dropped = None if routed is None or kept is None else routed - kept
        if dropped is not None and (dropped < 0).any():
            dropped = None
        lost = sums.choices - int(routed.sum()) if routed is not None and sums.choices else 0
        if lost < 0:
            return None  # the output has another form
        calls = sums.aux_calls
        return LayerRouting(
            layer=number,
            routed=(kept if routed is None else routed).astype("<u4"),  # type: ignore[union-attr]
            drops_known=dropped is not None,
            dropped=(dropped if dropped is not None and dropped.any() else np.zeros(0)).astype("<u4"),
            aux_loss=(found[AUX_LOSS] if calls and AUX_LOSS in found else np.zeros(0)).astype("<f8"),
            aux_calls=calls if AUX_LOSS in found else 0,
            lost=lost,
            handed=routed is None,
        )


def _counts_of_buffer(added: Array | None) -> Array | None:
    """Returns what a forward added to the buffer in which a layer counts; None where these are no numbers of tokens."""
    if added is None or not added.any() or (added < 0).any() or (added != np.rint(added)).any():
        return None
    return added.astype(np.int64)
