"""Tables of the cost of a merge: whole merges, one more rank, and the report's page."""

from __future__ import annotations

from statistics import median

from bench.effort import Effort
from bench.estimate import sure, verdict
from bench.process import json_of
from bench.scale.merging import measure_pages, merge
from bench.scale.table import Merged, scale_table
from bench.synthetic_runs import RUNS
from bench.table import MB, Table, spread

#: (kind, ranks) -> (seconds, seconds without plots, MB), None where there is none.
_MERGE_BUDGETS: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("demo", 8): (3, 1, None),
    ("experts", 8): (10, None, None),
    ("large", 4096): (60, None, 2000),
    ("collectives", 4096): (60, None, 2000),
}
#: Seconds to open the page, by ranks.
_PAGE_BUDGETS_S = {256: 2.0}


def merges(effort: Effort) -> list[Table]:
    """Returns the table of time and memory of whole merges."""
    table = Table(
        "distprof merge",
        ("run", "shards, MB", "seconds", "seconds, --no-plots", "peak memory, MB", "budget"),
        [_merge(kind, ranks, times) for (kind, ranks), times in effort.merges.items()],
        (
            "Synthetic runs: the first has the shape of `make demo`, the others a mixture of "
            f"{RUNS['large']['experts']} experts over {RUNS['large']['ep']} ranks in every second block, or "
            f"{RUNS['experts']['layers'] // 2} mixtures of {RUNS['experts']['experts']} experts; "
            f"{RUNS['large']['steps']} timed steps.  Runs with collectives are of a dense model; one of their ranks is "
            "slow, and the others wait for it.  `make bench ARGS='--ranks 4096'` merges runs of 4,096 ranks.",
        ),
    )
    return [table]


def _merge(kind: str, ranks: int, times: int) -> tuple[str, ...]:
    found = merge(kind, ranks, times)
    taken = [[cost.wall_s for cost in costs] for costs in (found.with_plots, found.without_plots)]
    peak = max(cost.peak_bytes for cost in found.with_plots) / MB
    budgets = _MERGE_BUDGETS.get((kind, ranks), (None, None, None))
    measured = (median(taken[0]), median(taken[1]), peak)
    verdicts = [verdict(sure(value), budget, 0) for value, budget in zip(measured, budgets, strict=True)]
    collectives = RUNS[kind].get("collectives", 0)
    return (
        f"{ranks:,} ranks of {found.modules:,} modules" + (f", {collectives} collectives" if collectives else ""),
        f"{found.shard_bytes / MB:,.0f}",
        *(spread(seconds, 2) for seconds in taken),
        f"{peak:,.0f}",
        "; ".join(filter(None, verdicts)),
    )


def scale(effort: Effort) -> list[Table]:
    """Returns what one more rank costs a merge."""
    few, many = (Merged(**json_of("-m", "bench.scale", "large", "--ranks", ranks)) for ranks in effort.scale)
    return [scale_table(few, many)]


def pages(effort: Effort) -> list[Table]:
    """Returns the figures of the report's page; no table where Chromium is not installed."""
    found = measure_pages(list(effort.pages), effort.page_times)
    table = Table(
        "report.html",
        ("report", "kB", "seconds to make", "seconds to open", "budget"),
        [
            (
                f"{page.ranks:,} rank{'s' * (page.ranks > 1)} of {page.modules:,} modules",
                f"{page.size / 1000:,.0f}",
                spread(page.make_s, 2),
                spread(page.open_s, 2),
                "; ".join(filter(None, [_page_verdict(page.ranks, median(page.open_s))])),
            )
            for page in found
        ],
        ("Opened in Chromium without a screen, until everything is drawn.",),
    )
    return [table] if found else []


def _page_verdict(ranks: int, open_s: float) -> str | None:
    return verdict(sure(open_s), _PAGE_BUDGETS_S.get(ranks), 0)
