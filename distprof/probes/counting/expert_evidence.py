"""Decides whether modules in a list are experts, by their calls in a counted step.

Of experts a router is called first: it gives each token a score for each of them.  Then each is called with the tokens
that have chosen it, and these are the ones of the highest scores.  The layers of a chain and the members of an ensemble
get all tokens each; the head of a classifier, which may have as many rows as its model has layers, is called last.  The
levels of a pyramid get all items of the batch, with fewer rows of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch

from distprof.frameworks.routing_readers import MAX_TOP_K, plain_values
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.model.moe_layers import MoeLayer
from distprof.model.unnamed_layers import Seen, UnnamedLayer, Verdict
from distprof.probes.counting.weight_use import WeightUse
from distprof.probes.expert_rows import tensors_of_call
from distprof.probes.experts import read_hidden
from distprof.records import Array

_FEWEST_TOKENS = 8  # of a step: the rows of fewer may be like those of a choice by chance
_UNCERTAIN = 0.1  # of the choices: where more scores are equal, they do not tell who was chosen
_NOTHING = Verdict(Seen.NOTHING)


@dataclass
class _Turn:
    """One call of a router, and the calls of the modules in the list that follow it, before its next call."""

    tokens: int
    items: int  # the first dimension of what the router got
    rows: Array  # that each module of the list got
    firsts: Array  # the sum of the first dimensions of what it got
    elements: Array  # of what it got
    whole: int  # the elements of what the layer got
    #: Of all that modules got.
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    #: How often each module is certainly among the k highest scores, and how often at most: [k, 2, modules].
    highest: torch.Tensor | None = None
    routed: torch.Tensor | None = None  # as the router's output says itself


@dataclass
class _Calls:
    """The calls of one candidate in a step."""

    turns: list[_Turn] = field(default_factory=list)
    was_before: bool = False  # a module of the list was called before the router
    router_runs: bool = False
    whole: int = 0  # the elements of what the layer got last


class ExpertEvidence:
    """Watches the candidates in the counted step: :meth:`begin` starts it, :meth:`judge` ends it."""

    def __init__(self, candidates: Sequence[UnnamedLayer]) -> None:
        self._candidates = candidates
        self.use = WeightUse(candidates)
        #: Readers by row, called with its args and kwargs before the row runs, and with its output after.
        self.entering: dict[int, list[Callable[[tuple[Any, ...], dict[str, Any]], None]]] = {}
        self.leaving: dict[int, list[Callable[[Any], None]]] = {}
        for number, one in enumerate(candidates):
            self.entering.setdefault(one.layer.row, []).append(partial(self._layer_entered, number))
            if one.layer.router >= 0:
                self.entering.setdefault(one.layer.router, []).append(partial(self._router_entered, number))
                self.leaving.setdefault(one.layer.router, []).append(partial(self._router_left, number))
            for place, row in enumerate(one.layer.expert_rows):
                self.entering.setdefault(row, []).append(partial(self._entered, number, place))
        self._calls = [_Calls() for _ in candidates]

    def begin(self) -> None:
        self._calls = [_Calls() for _ in self._candidates]
        self.use.begin()

    def judge(self) -> None:
        """Tells each candidate what its calls have shown; waits for the device."""
        for number, (one, calls) in enumerate(zip(self._candidates, self._calls, strict=True)):
            seen, tokens = _verdict(calls), sum(turn.tokens for turn in calls.turns)
            if one.has_router:
                is_dense = _is_dense(calls) or self.use.is_dense(number, tokens)
                one.verdict = Verdict(Seen.DENSE) if is_dense and not self.use.is_padded(number) else _NOTHING
                continue
            if one.read_router is not None:
                seen = _NOTHING  # whether its weight scores tokens, no call shows
            if seen.seen is Seen.NOTHING and tokens >= _FEWEST_TOKENS and not any(map(_is_pyramid, calls.turns)):
                seen = Verdict(Seen.SUSPECT) if self.use.is_choice(number, tokens) else seen
            # Of experts that live elsewhere no call is seen: which tokens the others have to get is not known.
            is_sure = seen.seen is not Seen.EXPERTS or len(one.layer.expert_rows) == one.layer.num_experts
            one.verdict = seen if is_sure else Verdict(Seen.SUSPECT)
        self._calls = [_Calls() for _ in self._candidates]
        self.use.end()

    @hidden_from_dynamo
    def _layer_entered(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._calls[number].whole = prod(_shape(args, kwargs))
        if self._candidates[number].layer.router < 0:  # its weight is the layer's own: no call of it is seen
            self._router_entered(number, args, kwargs)
            self._calls[number].router_runs = False

    @hidden_from_dynamo
    def _router_entered(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shape, calls = _shape(args, kwargs), self._calls[number]
        rows, firsts, elements = np.zeros((3, len(self._candidates[number].layer.expert_rows)), np.int64)
        calls.turns.append(_Turn(_rows(shape), shape[0] if shape else 0, rows, firsts, elements, calls.whole))
        calls.router_runs = True

    @hidden_from_dynamo
    def _router_left(self, number: int, output: Any) -> None:
        calls, layer = self._calls[number], self._candidates[number].layer
        calls.router_runs = False
        if calls.turns:
            read_hidden(_keep_scores, calls.turns[-1], output)
            read_hidden(_keep_choice, calls.turns[-1], layer, output)

    @hidden_from_dynamo
    def _entered(self, number: int, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls, shape = self._calls[number], _shape(args, kwargs)
        if not calls.turns or calls.router_runs:
            calls.was_before = True
        else:
            turn = calls.turns[-1]
            turn.rows[place] += _rows(shape)
            turn.firsts[place] += shape[0] if shape else 0
            turn.elements[place] += prod(shape) if shape else 0
            turn.shapes.add(shape)


def _shape(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """Returns the shape of the tensor of a call that has the tokens."""
    tensors = tensors_of_call(args, kwargs)
    return tuple(tensors[0].shape) if tensors else ()


def _rows(shape: tuple[int, ...]) -> int:
    return prod(shape[:-1])


def _keep_scores(turn: _Turn, output: Any) -> None:
    """Keeps how often each module is among the highest scores.

    Equal scores may be chosen in any order.  Softmax rounds some that differ to equal ones, and keeps the order.
    """
    modules = len(turn.rows)
    tensors = (value for value in plain_values(output) if isinstance(value, torch.Tensor))
    fitting = (value for value in tensors if value.is_floating_point() and value.dim() > 1)
    found = next((value for value in fitting if tuple(value.shape[-1:]) == (modules,)), None)
    if found is None or found.numel() != turn.tokens * modules:
        return
    scores = found.detach().reshape(-1, modules).softmax(-1)
    highest = scores.sort(-1, descending=True).values
    counts = [
        torch.stack([(scores > highest[:, k : k + 1]).sum(0), (scores >= highest[:, k - 1 : k]).sum(0)])
        for k in range(1, min(modules - 1, MAX_TOP_K) + 1)
    ]
    turn.highest = torch.stack(counts)


def _keep_choice(turn: _Turn, layer: MoeLayer, output: Any) -> None:
    choice = layer.read_router(output, layer.num_experts) if layer.read_router is not None else None
    turn.routed = None if choice is None else choice.routed.detach().clone()


def _is_dense(calls: _Calls) -> bool:
    """Whether each module certainly got all tokens, in each turn."""
    turns = [turn for turn in calls.turns if turn.rows.any()]
    return bool(turns) and all(_is_pyramid(turn) or _gives_all(turn) for turn in turns)


def _gives_all(turn: _Turn) -> bool:
    fewest = turn.rows.min() >= max(turn.tokens, 1), turn.firsts.min() >= turn.items, turn.elements.min() >= turn.whole
    return bool((turn.rows == turn.rows[0]).all() and all(fewest))


def _is_pyramid(turn: _Turn) -> bool:
    """Whether modules got all items of a batch, but not as many rows of each."""
    return len(turn.shapes) > 1 and all(len(one) > 2 and one[0] == turn.items for one in turn.shapes)


def _verdict(calls: _Calls) -> Verdict:
    turns = [turn for turn in calls.turns if turn.rows.any()]
    if calls.was_before or not turns or sum(turn.tokens for turn in turns) < _FEWEST_TOKENS:
        return _NOTHING
    each = [_of_turn(turn) for turn in turns]
    if any(one.seen is Seen.NOTHING for one in each):
        return _NOTHING
    if len({*each}) == 1:
        return each[0]
    ways = {(one.seen, one.top_k) for one in each}
    return Verdict(*ways.pop()) if len(ways) == 1 else Verdict(Seen.SUSPECT)


def _of_turn(turn: _Turn) -> Verdict:
    """Returns what one turn shows: by the rows that modules got, or by the items, of which each has many rows."""
    if _is_pyramid(turn):
        return _NOTHING
    routed = None if turn.routed is None else turn.routed.cpu().numpy()
    by_rows = _of_counts(turn, turn.rows, routed)
    if by_rows.seen is Seen.EXPERTS or turn.items != turn.tokens or turn.rows.min() == turn.tokens:
        return by_rows
    by_items = _of_counts(turn, turn.firsts, routed)
    return by_items if by_items.seen is Seen.EXPERTS else by_rows


def _of_counts(turn: _Turn, counts: Array, routed: Array | None) -> Verdict:
    tokens, modules, total = turn.tokens, len(counts), int(counts.sum())
    if not tokens or counts.max() > tokens or counts.min() == tokens:
        return _NOTHING
    if routed is not None and (routed >= counts).all() and _share(int(routed.sum()), tokens, modules):
        return Verdict(Seen.EXPERTS, _share(int(routed.sum()), tokens, modules), reads_router=True)
    top_k, is_equal = _share(total, tokens, modules), bool((counts == counts[0]).all())
    if top_k and (not is_equal or _are_highest(turn, counts, top_k)):
        return Verdict(Seen.EXPERTS, top_k)
    dropping = next((k for k in range(1, modules) if _are_highest(turn, counts, k, limit=int(counts.max()))), 0)
    if dropping:
        return Verdict(Seen.EXPERTS, dropping)
    return Verdict(Seen.SUSPECT) if not is_equal or total != tokens else _NOTHING


def _share(total: int, tokens: int, modules: int) -> int:
    """Returns the number of modules for each token; 0 if it is no whole number, or all."""
    return total // tokens if total % tokens == 0 and 0 < total // tokens < modules else 0


def _are_highest(turn: _Turn, counts: Array, top_k: int, limit: int | None = None) -> bool:
    """Whether modules got what has its highest ``top_k`` scores there; up to a ``limit``, which some have not."""
    if turn.highest is None or top_k > len(turn.highest):
        return False
    least, most = turn.highest[top_k - 1].cpu().numpy()
    if (most - least).sum() > _UNCERTAIN * top_k * turn.tokens:
        return False
    if limit is None:
        return bool(((least <= counts) & (counts <= most)).all())
    below = counts < limit
    is_like = (np.minimum(least, limit) <= counts) & (counts <= np.minimum(most, limit))
    return bool(below.sum() > 1 and counts[below].any() and is_like.all())
