"""Sentences of the Experts block: over all layers, over the steps, and a better placement of the experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import duration, percentage, ratio
from distprof.merge.report import (
    ONLY_DEVICE,
    ONLY_TOKENS,
    TOKENS_AND_DEVICE,
    ExpertLayerStats,
    ExpertSummary,
    OverLayers,
    Report,
)
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import pluralise
from distprof.rank_names import few_spans

_LAYERS_SHOWN = 3


def findings(report: Report) -> Iterator[str]:
    """Yields the lines; those of which nothing is known are left out."""
    summary = report.expert_summary
    if summary is None:
        return
    yield from _over_layers(summary)
    if summary.cost_ns and summary.cost_share is not None:
        share = percentage(summary.cost_share, 1)
        yield f"Equal loads of the ep ranks would save {duration(summary.cost_ns)} of an iteration ({share})."
    yield from _empty_slots(summary)
    if summary.padding_share:
        share = percentage(summary.padding_share, 1)
        yield f"In the counted step, {share} of what experts processed was padding, by the attention mask."
    yield from _parts(report.experts[summary.worst_first[0]])
    yield from _causes(report.experts, summary)
    yield from _micro_batches([report.experts[place] for place in summary.unequal_micro_batches])
    yield from _over_steps(report.experts)
    yield from _placements([report.experts[place] for place in summary.better_placed])


def _empty_slots(summary: ExpertSummary) -> Iterator[str]:
    if not summary.has_empty_slots:
        return
    cost = "" if summary.empty_cost_ns is None else f": {duration(summary.empty_cost_ns)} of an iteration"
    yield f"Empty slots: {percentage(summary.empty_share, 1)} of the rows that experts ran on had no token{cost}."


def _parts(layer: ExpertLayerStats) -> Iterator[str]:
    """Yields where the time of a layer goes, if that of its experts is known."""
    times = layer.times
    if times is None or times.experts_ns is None or times.rest_ns is None:
        return
    parts = [("router", times.gate_ns), ("experts", times.experts_ns), ("shared", times.shared_ns)]
    known = [f"{what} {duration(time_ns)}" for what, time_ns in parts if time_ns is not None]
    rest = "dispatch, combine, waits"
    if times.dispatch_ns is not None and times.combine_ns is not None:
        rest = f"dispatch {duration(times.dispatch_ns)}, combine {duration(times.combine_ns)}, with waits"
    yield f"Time in {one_line(layer.name)}: {', '.join(known)}, rest ({rest}) {duration(times.rest_ns)}."
    if times.not_apart and layer.ep_tokens:
        yield f"Dispatch and combine are not told apart: {times.not_apart}."


def _causes(layers: Sequence[ExpertLayerStats], summary: ExpertSummary) -> Iterator[str]:
    """Yields why ep ranks differ in time, of the costliest layers."""
    found = {*summary.unequal_tokens, *summary.slow_devices}
    costly = sorted((one for one in layers if one.name in found), key=lambda one: -(one.ep_cost_ns or 0))
    for layer in costly[:_LAYERS_SHOWN]:
        yield f"{one_line(layer.name)}: {cause_words(layer)}."
    if len(costly) > _LAYERS_SHOWN:
        tokens, devices = len(summary.unequal_tokens), len(summary.slow_devices)
        yield f"ep ranks differ by their tokens in {pluralise(tokens, 'layer')}, by their devices in {devices}."


def cause_words(layer: ExpertLayerStats) -> str:
    """Returns whether tokens, a device or both make the ep ranks of a layer differ in time; empty where neither."""
    found = layer.tokens_or_device
    if found is None or not found.cause or layer.ep_load is None:
        return ""
    slowest = max(range(len(found.slowness)), key=found.slowness.__getitem__)
    tokens = f"ep rank {layer.ep_load.hottest} has {ratio(layer.ep_load.max_over_mean)} x the mean of the tokens"
    device = f"ep rank {slowest} takes {ratio(found.slowness[slowest])} x as long as the others for as many tokens"
    return {
        ONLY_TOKENS: f"tokens, not a device: {tokens}",
        ONLY_DEVICE: f"a device, not tokens: {device}",
        TOKENS_AND_DEVICE: f"both tokens and a device: {tokens}, and {device}",
    }[found.cause]


def _over_layers(summary: ExpertSummary) -> Iterator[str]:
    if summary.layers < 2:
        return
    for what, found in (("max/mean", summary.max_over_mean), ("ep max/mean", summary.ep_max_over_mean)):
        if found is not None:
            yield f"{what} over {summary.layers} layers: {_quantiles(found)}."


def _quantiles(found: OverLayers) -> str:
    worst = f"{ratio(found.worst)} in {one_line(found.worst_layer)}"
    return f"median {ratio(found.p50)}, 95th percentile {ratio(found.p95)}, worst {worst}"


def _micro_batches(layers: Sequence[ExpertLayerStats]) -> Iterator[str]:
    """Yields a line for layers whose single micro-batches are less equal than the sums over their steps."""
    parts = []
    for layer in layers[:_LAYERS_SHOWN]:
        one = layer.micro_batches
        assert one is not None
        median = f"{ratio(one.max_over_mean)} in the median"
        if one.ep_max_over_mean is not None:
            median += f", {ratio(one.ep_max_over_mean)} of ep ranks"
        worst = f"{ratio(one.worst.max_over_mean)} at worst"
        where = f"expert {one.worst.hottest} in iteration {one.worst.iteration}"
        parts.append(f"{one_line(layer.name)} {median}, {worst} ({where})")
    if parts:
        more = "; ..." if len(layers) > _LAYERS_SHOWN else ""
        yield f"Sums over a step hide unequal micro-batches, whose max/mean is: {'; '.join(parts)}{more}."


def _over_steps(layers: Sequence[ExpertLayerStats]) -> Iterator[str]:
    for trend, words in ((-1, "becomes more equal"), (1, "becomes more unequal")):
        found = [layer for layer in layers if layer.over_steps is not None and layer.over_steps.trend == trend]
        if found:
            yield f"From step to step, the load {words} in {pluralise(len(found), 'layer')}: {_ends(found)}."
    yield from _fallen_asleep(layers)


def _fallen_asleep(layers: Sequence[ExpertLayerStats]) -> Iterator[str]:
    """Yields the experts that no longer get tokens; of many layers those with the most of them."""
    found = [(layer, layer.over_steps.fallen_asleep) for layer in layers if layer.over_steps is not None]
    found = sorted((one for one in found if one[1]), key=lambda one: -len(one[1]))
    for layer, asleep in found[:_LAYERS_SHOWN]:
        which = f"expert {asleep[0]}" if len(asleep) == 1 else f"experts {few_spans(asleep, 'expert')}"
        yield f"{one_line(layer.name)}: {which} had no token in the second half of the steps."
    if len(found) > _LAYERS_SHOWN:
        yield f"So it is with experts of {pluralise(len(found) - _LAYERS_SHOWN, 'more layer')}."


def _ends(layers: Sequence[ExpertLayerStats]) -> str:
    """Returns max/mean in the first and in the last step of some layers."""
    parts = []
    for layer in layers[:_LAYERS_SHOWN]:
        assert layer.over_steps is not None
        known = [value for value in layer.over_steps.max_violation if value is not None]
        parts.append(f"{one_line(layer.name)} {ratio(known[0] + 1)} -> {ratio(known[-1] + 1)}")
    return ", ".join(parts) + (", ..." if len(layers) > _LAYERS_SHOWN else "")


def _placements(layers: Sequence[ExpertLayerStats]) -> Iterator[str]:
    """Yields what other places for the experts would do to layers in which they would make ep ranks more equal."""
    shown = [
        f"{one_line(layer.name)} {ratio(layer.placement.max_over_mean_now)} -> {ratio(layer.placement.max_over_mean)}"
        for layer in layers[:_LAYERS_SHOWN]
        if layer.placement is not None
    ]
    if shown:
        more = ", ..." if len(layers) > _LAYERS_SHOWN else ""
        yield f"ep max/mean with other experts on each rank, as many as now: {', '.join(shown)}{more}"
        yield "(fitted on half of the steps, judged by the other half; summary.json has the places)."
