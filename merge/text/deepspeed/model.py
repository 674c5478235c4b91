"""The lines of the Profile Summary on the whole model: exact figures, from the union of all ranks."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import NOT_AVAILABLE, macs, parameters, percentage, quantity
from distprof.merge.report import Report
from distprof.merge.text.format.lines import labelled_line, one_line
from distprof.merge.wording import join_words
from distprof.rank_names import rank_names
from distprof.records import ASSUMED, EXPERT, SHARED

EXACT = "params of model, exact"
_TITLES = {SHARED: "shared expert"}


def params_lines(report: Report) -> Iterator[str]:
    """Yields the numbers of parameters, by kind; where ranks are missing, lower bounds, and what is not covered."""
    summary, model = report.summary, report.model
    label = f"params of model, {_how(report, covers_all=summary.exact_covers_all)}"
    if summary.params_exact is None:
        yield labelled_line(EXACT, NOT_AVAILABLE)
        yield from evaluated_lines(report)
        return
    yield labelled_line(label, f"{summary.params_exact:,}")
    if not summary.exact_covers_all:
        yield labelled_line("  not covered", _uncovered(report))
    for kind, numel in model.params_by_kind.items():
        yield labelled_line(f"  {_TITLES.get(kind, kind)}", f"{numel:,}")
    yield labelled_line("  trainable", f"{summary.trainable_params_exact:,}")
    if EXPERT in model.params_by_kind or (model.active_params is None and model.why_no_active):
        known = model.active_params is not None
        active = f"{model.active_params:,}" if known else one_line(f"{NOT_AVAILABLE}: {model.why_no_active}")
        label = "  active per token" + (", measured" if model.active_is_measured else "")
        yield labelled_line(label, active)
    yield from evaluated_lines(report)


def evaluated_lines(report: Report) -> Iterator[str]:
    """Yields the parameters of models that the job only evaluates."""
    for model in report.model.evaluated:
        yield labelled_line(f"params evaluated only ({one_line(model.name)})", parameters(model.params))


def _how(report: Report, *, covers_all: bool) -> str:
    """Returns how exact a union over ranks is: it may depend on assumptions on replicas."""
    if not covers_all:
        return "at least"
    topology = report.topology
    guessed = topology.sources.get("dp", topology.source) == ASSUMED and topology.sizes["dp"] > 1
    guessed = guessed or report.model.assumes_replicas
    return "exact if ranks are replicas, as assumed" if guessed else "exact"


def _uncovered(report: Report) -> str:
    if report.model.uncovered:
        return join_words(report.model.uncovered)
    silent = [row.rank for row in report.ranks if row.params is None]
    missing = {*report.run.missing_ranks, *silent}
    return f"only replicas ({rank_names(missing)})" if missing else "the ranks do not agree, see the note above"


def work_lines(report: Report) -> Iterator[str]:
    """Yields MACs and flops of the forward; where they differ, also those without padding, and all that ran."""
    work = report.model.forward
    if work is None:
        if report.model.why_no_forward:
            yield labelled_line("fwd MACs of model, exact", f"{NOT_AVAILABLE}: {report.model.why_no_forward}")
        return
    for what, own, executed, useful, text in (
        ("MACs", work.macs, work.executed_macs, work.useful_macs, macs),
        ("flops", work.flops, work.executed_flops, work.useful_flops, quantity),
    ):
        yield labelled_line(f"fwd {what} of model, {_how(report, covers_all=work.covers_all)}", text(own))
        if useful is None:
            yield labelled_line("  useful", "n/a: no router or top-k was seen")
        elif useful < own:
            yield labelled_line("  useful, without padding, at most", f"{text(useful)}  ({percentage(useful, own)})")
        if _differ(executed, own):
            yield labelled_line(
                "  executed, with repeated work of tp ranks", f"{text(executed)}  ({percentage(executed, own)})"
            )


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > 1e-9 * max(one, other)
