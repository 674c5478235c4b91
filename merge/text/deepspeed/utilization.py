"""MFU and HFU in the Profile Summary, with their peaks and their definition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from distprof.merge.quantities import NOT_AVAILABLE, percentage, quantity
from distprof.merge.report import PeakUsed, Report, Utilization, UtilizationSpread
from distprof.merge.text.format.lines import labelled_line, one_line, wrapped
from distprof.merge.wording import pluralise

_CONVENTION = (
    "MFU counts 2 flops for each MAC of forward and backward, each once: causal attention in full, attention's backward"
    " as 2 x its forward, repeated work of tensor-parallel ranks once, no recomputed and no element-wise work (PaLM,"
    " arXiv:2204.02311, appendix B).  HFU counts all MACs that ran."
)
_AT_LEAST = "  At least: some work is not included (see the notes, and the lines 'not counted')."
_TOO_MUCH = (
    "  No device exceeds 100%: this peak is too low (measure it again while nothing else runs, or give --peak-tflops)."
)


def utilization_lines(report: Report) -> Iterator[str]:
    """Yields the lines of the summary."""
    used, unit = report.utilization, report.run.unit
    yield labelled_line(
        f"model flops per {unit} = 2 * MACs of fwd and bwd, each once", quantity(used.model_flops_per_rank)
    )
    yield labelled_line("MFU = model flops / (mean wall iteration * peak FLOPS)", _figure(used.mfu, report))
    yield labelled_line("HFU = 2 * MACs that ran / (mean wall iteration * peak FLOPS)", _figure(used.hfu, report))
    if used.mfu is not None:
        yield from _explained(used, unit)


def missing_labels(report: Report) -> list[str]:
    """Returns the labels of the lines without a value, which all have the same reason."""
    used, unit = report.utilization, report.run.unit
    model = [f"model flops per {unit}"] if used.model_flops_per_rank is None else []
    return [*model, "MFU", "HFU"] if used.mfu is None else []


def _figure(figure: UtilizationSpread | None, report: Report) -> str:
    if figure is None:
        return NOT_AVAILABLE
    least, most = percentage(figure.min, 1), percentage(figure.max, 1)
    among = f"  [{least} .. {most}]" if least != most else ""
    of = f"  ({figure.ranks} of {pluralise(report.run.world_size, 'rank')})"
    at_least = "at least " if report.utilization.at_least else ""
    job, median = percentage(figure.job, 1), percentage(figure.at_median, 1)
    beside = f"  ({median} at the median iteration)" if median != job else ""
    return f"{at_least}{job}{among}{of if figure.ranks < report.run.world_size else ''}{beside}"


def _explained(used: Utilization, unit: str) -> Iterator[str]:
    yield from wrapped(f"{'; '.join(_peaks(used.peaks))}.", f"peak per {unit}: ", "  ")
    too_much = _TOO_MUCH if used.hfu and used.hfu.max > 1 else ""
    yield from wrapped(_CONVENTION + (_AT_LEAST if used.at_least else "") + too_much, "  ", "  ")


def _peaks(peaks: tuple[PeakUsed, ...]) -> Iterator[str]:
    """Yields for each device and source the arithmetics, with their shares of the work."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    alone = len({peak.arithmetic for peak in peaks}) == 1
    for peak in peaks:
        on = f" on {pluralise(peak.threads, 'thread')}" if peak.threads else ""
        share = "" if alone else f" ({percentage(peak.share, 1)} of the MACs)"
        figure = f"{quantity(peak.tflops * 1e12, 'FLOPS')} in {peak.arithmetic}{share}"
        groups[f"{one_line(peak.device)}{on}", peak.source].append(figure)
    for (device, source), figures in groups.items():
        yield f"{', '.join(figures)}, {device} ({source})"
