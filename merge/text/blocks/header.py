"""The head of the report: the run, its ranks and topology, and notes that qualify the numbers below."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from distprof.merge.quantities import duration
from distprof.merge.report import Clocks, Report, RunInfo, TopologyInfo, WindowInfo
from distprof.merge.text.format.colour import YELLOW, Line, Part
from distprof.merge.text.format.lines import heading, wrapped
from distprof.merge.wording import pluralise
from distprof.rank_names import few_spans, number_spans, rank_names
from distprof.records import ASSUMED, DECLARED, DEVICE_MESH, PARAMETERS, PROCESS_GROUPS

_LABEL = 10
_SOURCES = {
    DECLARED: "declared by the script",
    DEVICE_MESH: "from the dimension names of the DeviceMesh",
    PROCESS_GROUPS: "from the descriptions of process groups",
    PARAMETERS: "from the shards of parameters",
    ASSUMED: "assumed",
}


def header_block(report: Report) -> Iterator[str]:
    """Yields the lines of the head."""
    yield heading("distprof", 26)
    yield from _run(report.run)
    yield from _ranks(report.run)
    yield from _windows(report.run)
    yield from _clocks(report.clocks)
    yield from _entry("topology", _topology(report.topology))
    for note in report.run.notes:
        first, *rest = _entry("note", note)
        yield Line(first, (Part(0, len("note:"), YELLOW),))
        yield from rest


def _run(run: RunInfo) -> Iterator[str]:
    script = f" ({run.script})" if run.script else ""
    yield from _entry("run", f"{run.name}{script}")
    device = f"{run.device} ({run.device_name})" if run.device_name else run.device
    parts = [device, *([f"torch {run.torch}"] if run.torch else [])]
    if run.hosts:
        parts.append(f"{len(run.hosts)} hosts" if len(run.hosts) > 1 else f"host {run.hosts[0]}")
    yield from _entry("on", ", ".join(parts))


def _ranks(run: RunInfo) -> Iterator[str]:
    recorded = f"{len(run.ranks) - len(run.without_data)} of {run.world_size} ranks recorded"
    missing = f"; missing: {few_spans(run.missing_ranks)}" if run.missing_ranks else ""
    yield from _entry("ranks", recorded + missing, [Part(len(recorded), len(recorded + missing), YELLOW)])
    by_reason: dict[str, list[int]] = defaultdict(list)
    for rank, reason in run.incomplete.items():
        by_reason[reason].append(rank)
    for reason, ranks in by_reason.items():
        yield from _entry("", f"incomplete: {rank_names(ranks)} ({reason})")


def _windows(run: RunInfo) -> Iterator[str]:
    """Yields lines on the windows of a run that has several, the one of this report first."""
    if len(run.windows) > 1:
        (shown,) = (window for window in run.windows if window.number == run.window)
        yield from _entry("window", _window(shown))
        for window in run.windows:
            if window is not shown:
                yield from _entry("", f"also recorded: window {_window(window)}, shown by --window {window.number}")


def _window(window: WindowInfo) -> str:
    iterations = number_spans(range(window.first_iteration, window.last_iteration + 1))
    several = "s" if window.last_iteration > window.first_iteration else ""
    time = "not timed" if window.iteration_ns is None else f"median iteration {duration(window.iteration_ns)}"
    return f"{window.number} (iteration{several} {iterations} of {pluralise(window.ranks, 'rank')}, {time})"


def _clocks(clocks: Clocks) -> Iterator[str]:
    """How times of several hosts compare, which matters for traces and for who came late."""
    if len(clocks.hosts) == 1:
        return
    if clocks.shifted:
        yield from _entry("clocks", shifted_clocks_words(clocks))
        return
    if clocks.unknown:
        yield from _entry("clocks", f"{clocks.unknown}: moments on different hosts do not compare")
        return
    within = f"moments on different hosts compare within {duration(clocks.bound_ns)}"
    others = clocks.hosts[1:]
    if len(others) == 1:
        ahead, drift, error = others[0].ahead_ns or 0, others[0].drift_ppm, others[0].drift_bound_ppm
        where = f"{duration(abs(ahead))} {'ahead of' if ahead >= 0 else 'behind'} {clocks.reference}"
        runs = ""
        if drift is not None and error is not None and abs(drift) > error:
            runs = f", and runs {abs(drift):.3g} ppm (+- {error:.2g}) {'faster' if drift >= 0 else 'slower'}"
        yield from _entry("clocks", f"that of {others[0].host} is {where}{runs}; {within}")
    else:
        ahead_ns = [host.ahead_ns or 0 for host in clocks.hosts]
        apart = duration(max(ahead_ns) - min(ahead_ns))
        yield from _entry("clocks", f"those of {len(clocks.hosts)} hosts are up to {apart} apart; {within}")


def shifted_clocks_words(clocks: Clocks) -> str:
    """Returns by how much collectives corrected the clocks of hosts."""
    most = max(clocks.hosts, key=lambda host: abs(host.shift_ns))
    moved = f"those of {len(clocks.hosts)} hosts by up to" if len(clocks.hosts) > 2 else f"that of {most.host} by"
    done = f"correct {moved} {duration(abs(most.shift_ns))}" if most.shift_ns else "agree with them"
    why = clocks.unknown or f"clocks were compared within {duration(clocks.bound_ns)} only"
    within = "how exactly moments on different hosts compare is not known"
    if clocks.shift_error_ns is not None:
        within = f"moments on different hosts compare within {duration(clocks.shift_error_ns)}"
    return f"{why}; collectives, which their members leave at about one time, {done}: {within}"


def _topology(topology: TopologyInfo) -> str:
    """Returns the sizes and their source; axes from another source are listed with it."""
    sizes = ", ".join(f"{axis} {size}" for axis, size in topology.sizes.items())
    others: dict[str, list[str]] = defaultdict(list)
    for axis, source in topology.sources.items():
        if source != topology.source and topology.sizes.get(axis, 1) > 1:
            others[source].append(axis)
    parts = [f"; {', '.join(axes)} {_source_words(source)}" for source, axes in others.items()]
    return f"{sizes} ({_source_words(topology.source)}{''.join(parts)})"


def _source_words(source: str) -> str:
    return _SOURCES.get(source, f"from {source}")


def _entry(label: str, text: str, parts: Sequence[Part] = ()) -> list[str]:
    return wrapped(text, f"{label + ':' if label else '':<{_LABEL}}", " " * _LABEL, parts)
