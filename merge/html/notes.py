"""What the reader must know before believing a number: what is missing, assumed or not known, and why."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import duration
from distprof.merge.report import Report
from distprof.merge.text.blocks.collectives import unjoined_words
from distprof.merge.text.blocks.header import shifted_clocks_words
from distprof.merge.text.deepspeed.utilization import missing_labels
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import pluralise
from distprof.plain import dataclass
from distprof.rank_names import number_spans, rank_names
from distprof.records import ASSUMED

_SHOWN = 12


@dataclass(frozen=True)
class Note:
    """One sentence, and what it is about."""

    about: str
    text: str


def notes(report: Report) -> list[Note]:
    """Returns all notes, on ranks first, each once."""
    found = (*_on_ranks(report), *_on_times(report), *_on_work(report), *_without_value(report))
    return list(dict.fromkeys(Note(about, one_line(text)) for about, text in found if text))


def _on_ranks(report: Report) -> Iterator[tuple[str, str]]:
    run = report.run
    if run.missing_ranks:
        yield "missing", f"{rank_names(run.missing_ranks)}: no shard was found"
    if run.without_data:
        yield "missing", f"{rank_names(run.without_data)}: the shard has no iteration"
    by_reason: dict[str, list[int]] = {}
    for rank, reason in run.incomplete.items():
        by_reason.setdefault(reason, []).append(rank)
    for reason, ranks in by_reason.items():
        yield "incomplete", f"{rank_names(ranks)}: {reason}"
    for note in run.notes:
        yield "note", note
    assumed = [axis for axis, source in report.topology.sources.items() if source == ASSUMED]
    if assumed and run.world_size > 1:
        yield "assumed", f"topology: {', '.join(assumed)}"


def _on_times(report: Report) -> Iterator[tuple[str, str]]:
    found, clocks = report.collectives, report.clocks
    if report.run.world_size > 1:
        yield "comparison", report.skew.too_few
        yield "comparison", report.verdict.ranks.reason
    if len(report.ranks) > 1:
        if report.verdict.ranks.why_self_times:
            yield "comparison", f"self times were compared: {report.verdict.ranks.why_self_times}"
        yield "waits", found.why_not
        yield "messages", found.message_unseen
        if found.unjoined:
            yield "collectives", unjoined_words(found.unjoined)
        if found.lost:
            yield "collectives", f"{found.lost:,} entries were overwritten before they were read: lower bounds"
    yield "clocks", shifted_clocks_words(clocks) if clocks.shifted else clocks.unknown
    if clocks.bound_ns and not clocks.shifted:
        yield "clocks", f"moments on different hosts compare within {duration(clocks.bound_ns)}"
    for row in report.ranks:
        if row.memory_unknown:
            yield "memory", f"{rank_names([row.rank])}: {row.memory_unknown}"


def _on_work(report: Report) -> Iterator[tuple[str, str]]:
    summary, used = report.summary, report.utilization
    if not summary.exact_covers_all:
        yield "lower bounds", "parameters and flops of the whole model: not every rank counted"
    if report.model.uncovered:
        yield "not covered", ", ".join(report.model.uncovered)
    if report.model.assumes_replicas:
        yield "assumed", "some parameters are equal on all ranks"
    if used.at_least:
        yield "MFU", "at least: some work is not included"
    for peak in used.peaks:
        yield "peak", f"{peak.device}, {peak.arithmetic}: {peak.tflops:g} TFLOPS ({peak.source})"
    if summary.batch_found and summary.batch_size_per_rank is not None:
        yield "batch size", f"is {summary.batch_found}"
    if summary.uncounted_ops:
        names = [f"{name} x {calls}" for name, calls in summary.uncounted_ops.items()]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield "not counted", f"{', '.join(names[:_SHOWN])}{more}"
    for region in report.generated:
        kernels = pluralise(len(region.kernels), "kernel")
        yield "not counted", f"{kernels} that the compiler generated in {region.module or 'a function of the script'}"


def _without_value(report: Report) -> Iterator[tuple[str, str]]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in report.summary.unavailable.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        yield "n/a", f"{', '.join(names)}: {reason}"
    if report.utilization.unavailable:
        yield "n/a", f"{', '.join(missing_labels(report))}: {report.utilization.unavailable}"
    yield "to do", report.utilization.to_do


def facts(report: Report) -> list[tuple[str, str]]:
    """Returns the set-up of the run, as names and values."""
    run = report.run
    sizes = [f"{axis} {size}" for axis, size in report.topology.sizes.items() if size > 1 and axis != "mp"]
    recorded = len(run.ranks) - len(run.without_data)
    found = [
        ("ranks", f"{recorded} of {run.world_size} recorded"),
        ("topology", ", ".join(sizes) or "one rank" if run.world_size == 1 else ", ".join(sizes)),
        ("device", f"{run.device} ({run.device_name})" if run.device_name else run.device),
        ("hosts", run.hosts[0] if len(run.hosts) == 1 else str(len(run.hosts))),
        ("script", run.script),
        ("torch", run.torch),
        ("window", _window(report)),
    ]
    return [(name, one_line(value)) for name, value in found if value]


def _window(report: Report) -> str:
    numbers = [window.number for window in report.run.windows]
    steps = number_spans({step for row in report.ranks for step in row.step_iterations})
    shown = f"iterations {steps}" if steps else "no timed step"
    return f"{report.run.window} of {number_spans(numbers)}: {shown}" if len(numbers) > 1 else shown
