"""The first page: at most 40 lines of 80 columns with the answer first, and what it rests on.

verdict, what to do next -> iteration and its phases -> throughput, MFU, memory -> where the time goes -> notes
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from distprof.merge.quantities import (
    NS_PER_SECOND,
    byte_size,
    duration,
    flops_per_second,
    percentage,
    plain,
    whole_percent,
)
from distprof.merge.report import LONG_STEP, RankRow, Report, Summary
from distprof.merge.text.blocks.verdict import verdict
from distprof.merge.text.blocks.warmup import warmup_words
from distprof.merge.text.format.colour import BOLD, paint
from distprof.merge.text.format.lines import one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import phase_title, pluralise
from distprof.rank_names import few_spans, number_spans, rank_names

WIDTH = 80
MOST_LINES = 40
_LABEL = 12
_BAR = 40  # characters of a whole iteration
_LEAST_SHARE = 0.005  # of a phase that is shown
_BUSIEST = 5
_NAME = 44
_NOTES = 3
_WITHOUT_DECIMALS = 1000  # from here on, decimals of a rate say nothing
_NOTE_LENGTH = 150


def first_page(report: Report, page: str = "") -> list[list[str]]:
    """Returns the blocks of lines; ``page`` is the name of the HTML page, if there is one."""
    blocks = [
        list(block)
        for block in (_title(report), _answer(report), _iteration(report), _figures(report), _busiest(report))
    ]
    used = sum(len(block) + 1 for block in blocks if block)
    return [*blocks, list(_notes(report, MOST_LINES - used, page))]


def _title(report: Report) -> Iterator[str]:
    run = report.run
    yield paint(one_line(f"distprof: {run.name}")[:WIDTH], BOLD)
    recorded = f"{len(run.ranks) - len(run.without_data)} of {run.world_size} ranks recorded"
    sizes = [f"{axis} {size}" for axis, size in report.topology.sizes.items() if size > 1 and axis != "mp"]
    hosts = f"{len(run.hosts)} hosts" if len(run.hosts) > 1 else f"host {one_line(run.hosts[0])}" if run.hosts else ""
    numbers = number_spans(one.number for one in run.windows)
    window = f"window {run.window} of {numbers}" if len(run.windows) > 1 else ""
    yield from wrapped(", ".join(filter(None, [recorded, *sizes, run.device, hosts, window])), width=WIDTH)


def _answer(report: Report) -> Iterator[str]:
    yield from verdict(report, WIDTH)
    for sentence in report.next_steps:
        yield from wrapped(one_line(sentence), "-> ", "   ", width=WIDTH)


def _iteration(report: Report) -> Iterator[str]:
    """Yields the length of an iteration, and a bar for each of its phases."""
    times = report.summary.iterations
    if times is None:
        yield from _warmup(report)
        return
    figures = f"median {duration(times.median_ns)}, mean {duration(times.mean_ns)}, p95 {duration(times.p95_ns)}"
    yield from _entry("iteration", f"{figures}, of {pluralise(times.steps, 'timed step')}")
    if times.long:
        which = f"iteration{'s' if len(times.long) > 1 else ''} {few_spans(times.long, 'iteration')}"
        yield from _entry("", f"{len(times.long)} of them above {LONG_STEP:g} x the median: {which}")
    phases = [one for one in report.time.phases if one.share >= _LEAST_SHARE]
    for one in phases:
        waiting = round(_BAR * one.share * min(1.0, (one.wait_ns or 0.0) / one.median_ns))
        bar = "#" * (round(_BAR * one.share) - waiting) + "." * waiting
        yield _phase_line(one.phase, one.median_ns, one.share, bar)
    if not report.time.phases_add_up:
        yield f"  the phases sum to {duration(report.time.phases_sum_ns)}: each is a median of its own"
    if any(one.wait_ns for one in phases):
        yield "  dots are waits for other ranks in collectives"


def _warmup(report: Report) -> Iterator[str]:
    """Yields what was seen where no step was timed: the warm-up iterations, and the phases of the last of them."""
    seen = warmup_words(report)
    if not seen:
        return
    yield from _entry("iteration", seen)
    last = report.warmup[-1]
    yield from _entry("", f"{'phases of the last one' if len(report.warmup) > 1 else 'its phases'}, still warming up:")
    for phase, time in last.phases_ns.items():
        share = time / last.duration_ns if last.duration_ns else 0.0
        if share >= _LEAST_SHARE:
            yield _phase_line(phase, time, share, "#" * round(_BAR * share))


def _phase_line(phase: str, time_ns: float, share: float, bar: str) -> str:
    return f"  {phase_title(phase):<16}{duration(time_ns):>11} {whole_percent(share):>5} {bar}".rstrip()


def _figures(report: Report) -> Iterator[str]:
    for label, figure in key_figures(report):
        yield from _entry(label, figure)


def key_figures(report: Report) -> list[tuple[str, str]]:
    """Returns throughput, MFU, memory and experts in words, each with its label; those that are known."""
    figures = (
        ("throughput", _throughput(report.summary)),
        ("MFU", _mfu(report)),
        ("memory", _memory(report.ranks)),
        ("experts", _experts(report)),
    )
    return [(label, figure) for label, figure in figures if figure]


def _throughput(summary: Summary) -> str:
    if not summary.samples_per_second:
        return ""
    at_median = summary.samples_per_second_at_median if summary.throughputs_differ else None
    beside = f" ({_rate(at_median)} at the median iteration)" if at_median is not None else ""
    tokens = f", {_rate(summary.tokens_per_second)} tokens/s" if summary.tokens_per_second else ""
    return f"{_rate(summary.samples_per_second)} samples/s{beside}{tokens}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= _WITHOUT_DECIMALS else plain(value)


def _mfu(report: Report) -> str:
    """Returns MFU, or the model's flops in a second where no peak is known."""
    used, times = report.utilization, report.summary.iterations
    if used.mfu is not None:
        return f"{'at least ' if used.at_least else ''}{percentage(used.mfu.job, 1)}"
    if used.model_flops_per_rank is None or times is None:
        return ""
    rate = used.model_flops_per_rank / times.mean_ns * NS_PER_SECOND
    return f"n/a, no peak is known; model flops at {flops_per_second(rate)} per {report.run.unit}"


def _memory(rows: Sequence[RankRow]) -> str:
    used = {row.rank: row.peak_memory_bytes for row in rows if row.peak_memory_bytes}
    if not used:
        return ""
    most = max(used, key=lambda rank: (used[rank], -rank))
    beside = f" on rank {most}, the largest of {len(used)} ranks" if len(used) > 1 else ""
    return f"peak {byte_size(used[most])}{beside}"


def _experts(report: Report) -> str:
    seen = [(layer.max_over_mean, layer) for layer in report.experts if layer.max_over_mean is not None]
    if not seen:
        return ""
    load, layer = max(seen, key=lambda pair: pair[0])
    ranks = f"; its ep ranks up to {layer.ep_max_over_mean:.2f} x" if layer.ep_max_over_mean else ""
    name = shortened_apart([one_line(layer.name)], _NAME)[one_line(layer.name)]
    return f"{name}: expert {layer.hottest} has {load:.2f} x the mean load{ranks}"


def _busiest(report: Report) -> Iterator[str]:
    """Yields the modules with the largest self time, forward and backward together, without waits where known."""
    largest = report.time.modules[:_BUSIEST]
    if not largest:
        return
    title = "most own time" if report.time.has_own_times else "most self time"
    names = shortened_apart([one_line(row.subject) for row in largest], _NAME)
    yield from table(
        [title, "forward", "backward", "share"],
        [
            [
                names[one_line(row.subject)],
                duration(row.forward_ns),
                duration(row.backward_ns),
                whole_percent(row.share),
            ]
            for row in largest
        ],
        left=[title],
    )


def _notes(report: Report, room: int, page: str) -> Iterator[str]:
    """Yields what the reader must know before believing a number, as much as there are lines for, and where the whole
    report is.
    """
    run = report.run
    notes = [f"missing: {rank_names(run.missing_ranks)}"] if run.missing_ranks else []
    if run.incomplete:
        rank, reason = next(iter(run.incomplete.items()))
        others = f" and {pluralise(len(run.incomplete) - 1, 'other rank')}" if len(run.incomplete) > 1 else ""
        notes.append(f"incomplete: rank {rank}{others} ({reason})")
    notes += run.notes
    shown, room = 0, room - 2  # the two lines at the end
    for note in notes[:_NOTES]:
        text = textwrap.shorten(one_line(note), _NOTE_LENGTH, placeholder=" ...")
        lines = wrapped(text, "note: ", "      ", [], WIDTH)
        room -= len(lines)
        if room < 0:
            break
        shown += 1
        yield from lines
    if len(notes) > shown:
        yield f"{pluralise(len(notes) - shown, 'more note')} in summary.txt"
    if page:
        yield f"All of the report is in summary.txt (--full prints it) and in {page}."
    else:
        yield "All of the report is in summary.txt; --full prints it."


def _entry(label: str, text: str) -> list[str]:
    return wrapped(text, f"{label:<{_LABEL}}", " " * _LABEL, width=WIDTH)
