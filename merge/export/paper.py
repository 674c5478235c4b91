"""The main tables of the report for papers and issues: as Markdown, or as LaTeX without packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from distprof.merge.quantities import (
    NOT_AVAILABLE,
    byte_size,
    duration,
    parameters,
    percentage,
    plain,
    quantity,
    ratio,
)
from distprof.merge.report import ModuleStats, Report
from distprof.plain import dataclass
from distprof.printable import on_one_line

_MODULES = 10
_RANKS = 64
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
_MARKDOWN = {character: f"\\{character}" for character in "\\`*_{}[]<>|#~"}


@dataclass(frozen=True)
class _Table:
    """A title, the heads of the columns, and rows of text; the first column is on the left, numbers on the right."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render_tables(report: Report, form: str) -> str:
    """Returns the tables in one of :data:`FORMS`.  What was not measured is n/a."""
    return "\n".join(line for table in _tables(report) for line in FORMS[form](table))


def _tables(report: Report) -> Iterator[_Table]:
    found = (_job(report), _ranks(report), _modules(report), _experts(report), _collectives(report))
    return (table for table in found if table.rows)


def _job(report: Report) -> _Table:
    summary, times, used = report.summary, report.summary.iterations, report.utilization
    sizes = ", ".join(f"{axis} {size}" for axis, size in report.topology.sizes.items() if size > 1 and axis != "mp")
    rows = (
        ("ranks", f"{report.run.world_size} ({sizes})" if sizes else str(report.run.world_size)),
        ("device", report.run.device_name or report.run.device),
        ("torch", report.run.torch),
        ("parameters", parameters(summary.params_exact)),
        ("samples per iteration", plain(summary.samples_per_iteration)),
        ("iteration, median", duration(times.median_ns if times else None)),
        ("iteration, mean", duration(times.mean_ns if times else None)),
        ("samples per second", plain(summary.samples_per_second)),
        *([("tokens per second", plain(summary.tokens_per_second))] if summary.tokens_per_second else []),
        ("MFU", percentage(used.mfu.job, 1) if used.mfu else NOT_AVAILABLE),
        ("forward flops per rank", quantity(summary.fwd_flops_per_rank)),
        ("largest memory", byte_size(max((row.peak_memory_bytes or 0 for row in report.ranks), default=0) or None)),
    )
    return _Table(f"Run {report.run.name}", ("figure", "value"), rows)


def _ranks(report: Report) -> _Table:
    axes = tuple(axis for axis, size in report.topology.sizes.items() if size > 1 and axis != "mp")
    phases = ("data", "forward", "backward", "optimizer")
    shown = report.ranks[:_RANKS]
    rows = tuple(
        (
            str(row.rank),
            *(str(row.coordinates.get(axis, "")) for axis in axes),
            duration(row.iteration_ns),
            *(duration(row.phases_ns.get(phase)) for phase in phases),
            byte_size(row.peak_memory_bytes),
        )
        for row in shown
    )
    more = f", the first {len(shown)} of {len(report.ranks)}" if len(shown) < len(report.ranks) else ""
    return _Table(f"Ranks, medians of timed steps{more}", ("rank", *axes, "iteration", *phases, "peak memory"), rows)


def _modules(report: Report) -> _Table:
    busiest = sorted(report.modules, key=lambda row: -_self_ns(row))[:_MODULES]
    whole = report.summary.iterations.median_ns if report.summary.iterations else None
    rows = tuple(
        (
            row.label,
            row.class_name,
            duration(row.forward_self_ns),
            duration(row.backward_self_ns),
            percentage(_self_ns(row), whole),
        )
        for row in busiest
        if _self_ns(row)
    )
    return _Table("Modules with most self time", ("module", "class", "forward", "backward", "of iteration"), rows)


def _self_ns(row: ModuleStats) -> float:
    return (row.forward_self_ns or 0.0) + (row.backward_self_ns or 0.0)


def _experts(report: Report) -> _Table:
    rows = tuple(
        (
            layer.name,
            str(layer.num_experts),
            plain(layer.top_k),
            ratio(layer.max_over_mean),
            plain(layer.hottest),
            str(len(layer.dead)),
            percentage(layer.drop_rate, 1),
        )
        for layer in report.experts
    )
    heads = ("MoE layer", "experts", "top-k", "max / mean load", "expert with most", "without tokens", "dropped")
    return _Table("Load of experts", heads, rows)


def _collectives(report: Report) -> _Table:
    rows = tuple(
        (
            f"{row.op} of {row.kind}",
            plain(row.calls),
            byte_size(row.bytes),
            duration(row.wait_ns),
            duration(row.transfer_ns),
        )
        for row in report.collectives.rows
    )
    heads = ("collective", "calls", "bytes", "wait", "transfer")
    return _Table("Collectives of a rank in an iteration", heads, rows)


def _markdown(table: _Table) -> Iterator[str]:
    yield f"**{_escaped(table.title, _MARKDOWN)}**"
    yield ""
    yield _row(table.heads)
    yield _row(["---", *["---:"] * (len(table.heads) - 1)])
    for row in table.rows:
        yield _row([_escaped(cell, _MARKDOWN) for cell in row])
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(table: _Table) -> Iterator[str]:
    yield r"\begin{table}"
    yield rf"\caption{{{_escaped(table.title, _LATEX)}}}"
    yield rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}"
    yield r"\hline"
    yield rf"{' & '.join(_escaped(head, _LATEX) for head in table.heads)} \\"
    yield r"\hline"
    for row in table.rows:
        yield rf"{' & '.join(_escaped(cell, _LATEX) for cell in row)} \\"
    yield r"\hline"
    yield r"\end{tabular}"
    yield r"\end{table}"
    yield ""


def _escaped(text: str, characters: Mapping[str, str]) -> str:
    return "".join(characters.get(character, character) for character in on_one_line(text))


#: Name of a form -> its lines of a table.
FORMS: Mapping[str, Callable[[_Table], Iterator[str]]] = {"markdown": _markdown, "latex": _latex}
