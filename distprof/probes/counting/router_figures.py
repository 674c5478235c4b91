"""What the outputs of routers show in the counted step beside their choices: choices of padding tokens, and scores.

A router's output is read once more for the tokens that are padding, and once for the others.  Only where both together
are all of its choices is the output one whose tokens can be told apart.  Scores that a router does not return may be
the output of a module inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch

from distprof.frameworks.protocol import ReadRouter, Routing
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.model.module_tree import rows_inside
from distprof.model.moe_layers import MoeLayer
from distprof.probes.counting.padding_masks import Mask, PaddingMasks
from distprof.probes.counting.router_scores import ScoreSums, score_sums, scores_in
from distprof.probes.experts import read_hidden
from distprof.records import ModuleRow, RouterFigures


@dataclass
class _Sums:
    """The sums of one layer over the calls of its router in the step."""

    masked_tokens: int = 0
    padding_tokens: int = 0
    padding: torch.Tensor | None = None  # choices of padding tokens, by global expert
    padding_unknown: bool = False  # in one call of the router or more
    scores: list[ScoreSums | None] = field(default_factory=list)  # of each call, None where none were seen
    inside: list[torch.Tensor] = field(default_factory=list)  # scores that modules inside the router returned last


class FiguresOfRouters:
    """Reads the outputs of routers in one iteration: :meth:`begin` starts it, :meth:`read` ends it."""

    def __init__(self, layers: Sequence[MoeLayer], rows: Sequence[ModuleRow]) -> None:
        """``rows`` are those of all modules."""
        self._layers = layers
        self.masks = PaddingMasks()
        #: Readers by row: called with the row's output, and with the number of modules around it.
        self.leaving: dict[int, Callable[[Any, int], None]] = {}
        for number, layer in enumerate(layers):
            if layer.router >= 0:
                inside = rows_inside(layer.router, rows)
                self.leaving |= {row: partial(self._left_inside, number) for row in inside}
                self.leaving[layer.router] = partial(self._left, number)
        self.begin()

    def begin(self) -> None:
        self.masks.forget()
        self._sums = [_Sums() for _ in self._layers]

    def read(self) -> tuple[RouterFigures, ...]:
        """Returns what was seen; waits for the device."""
        self.masks.forget()
        figures = (_figures(number, sums) for number, sums in enumerate(self._sums))
        return tuple(one for one in figures if one.masked_tokens or one.scored_tokens)

    @hidden_from_dynamo
    def _left(self, number: int, output: Any, depth: int) -> None:
        mask, sums, layer = self.masks.inside(depth), self._sums[number], self._layers[number]
        if mask is None or not read_hidden(_add_padding, layer, sums, output, mask):
            sums.padding_unknown = True
        if not read_hidden(_add_scores, layer, sums, output):
            sums.scores.append(None)
        sums.inside = []

    @hidden_from_dynamo
    def _left_inside(self, number: int, output: Any, depth: int) -> None:
        read_hidden(_keep_scores, self._layers[number], self._sums[number], output)


def _figures(number: int, sums: _Sums) -> RouterFigures:
    found = RouterFigures(number)
    if sums.padding is not None and not sums.padding_unknown:
        padding = sums.padding.cpu().numpy().astype("<u4")
        found = replace(found, masked_tokens=sums.masked_tokens, padding_tokens=sums.padding_tokens, padding=padding)
    scores = [one for one in sums.scores if one is not None]
    if scores and len(scores) == len(sums.scores):
        z_losses = [one.z_loss for one in scores if one.z_loss is not None]
        found = replace(
            found,
            scored_tokens=sum(one.tokens for one in scores),
            entropy=np.array([sum(one.entropy for one in scores)]),
            z_loss=np.array([sum(z_losses)] if len(z_losses) == len(scores) else [], "<f8"),
        )
    return found


def _keep_scores(layer: MoeLayer, sums: _Sums, output: Any) -> None:
    sums.inside = [*scores_in(output, layer.num_experts)] or sums.inside


def _add_scores(layer: MoeLayer, sums: _Sums, output: Any) -> None:
    every = chain(scores_in(output, layer.num_experts), sums.inside)
    sums.scores.append(score_sums(every, layer.num_experts, layer.top_k))


def _add_padding(layer: MoeLayer, sums: _Sums, output: Any, mask: Mask) -> None:
    """Adds the choices of padding tokens.  Raises ValueError for an output whose tokens cannot be told apart."""
    padding, read = mask.padding(), layer.read_router
    if read is None:
        raise ValueError("the router's output does not have its choices")
    of_padding, of_others, of_all = (
        _kept(read, chosen, layer.num_experts)
        for chosen in (_of_tokens(output, padding), _of_tokens(output, ~padding), output)
    )
    if of_padding is None or of_others is None or of_all is None or not torch.equal(of_padding + of_others, of_all):
        raise ValueError("the choices of padding are not known")
    sums.masked_tokens += padding.numel()
    sums.padding_tokens += int(padding.sum())
    sums.padding = of_padding if sums.padding is None else sums.padding + of_padding


def _kept(read: ReadRouter, output: Any, num_experts: int) -> torch.Tensor | None:
    choice: Routing | None = read(output, num_experts)
    return None if choice is None else choice.routed if choice.kept is None else choice.kept


def _of_tokens(output: Any, chosen: torch.Tensor) -> Any:
    """Returns a router's output with only the chosen tokens; ``chosen`` has a bool for each token."""
    if isinstance(output, (tuple, list)):
        return type(output)(_of_tokens(one, chosen) for one in output) if type(output) in (tuple, list) else output
    if type(output) is not torch.Tensor or not output.dim():
        return output
    tokens, values = chosen.numel(), output.detach()
    for ahead in (1, 2):  # [tokens, ...] or [batch, length, ...]
        if values.dim() >= ahead and values.shape[:ahead].numel() == tokens:
            return values.reshape(tokens, *values.shape[ahead:])[chosen]
    return values[:, chosen] if values.dim() == 2 and values.shape[1] == tokens else output
