"""Tables of the cost of a merge: whole merges, one more rank, and the report's page."""

from __future__ import annotations

from statistics import median

from bench.effort import Effort
from bench.estimate import middle_half, sure, verdict
from bench.process import json_of
from bench.scale.merging import measure_pages, merge
from bench.scale.table import Merged, scale_table
from bench.synthetic_runs import RUNS
from bench.table import MB, Table, spread

#: (kind, ranks) -> (seconds, seconds without plots, CPU seconds without plots and page, MB), None where there is none.
_MERGE_BUDGETS: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("demo", 8): (1, None, 0.15, None),
    ("dense", 8): (None, None, 0.15, None),
    ("experts", 8): (10, None, None, None),
    ("large", 4096): (60, None, None, 2000),
    ("collectives", 4096): (60, None, None, 2000),
}
_BUDGET_DIGITS = (1, 1, 2, 0)
#: Seconds to open the page, by ranks.
_PAGE_BUDGETS_S = {256: 2.0}


def merges(effort: Effort) -> list[Table]:
    """Returns the table of time and memory of whole merges."""
    table = Table(
        "distprof merge",
        (
            "run",
            "shards, MB",
            "seconds",
            "seconds, --no-plots",
            "CPU seconds, without plots and page",
            "peak memory, MB",
            "budget",
        ),
        [_merge(kind, ranks, times) for (kind, ranks), times in effort.merges.items()],
        (
            "Synthetic runs: the first has the shape of `make demo`; that of 168 modules is dense, the others have "
            f"mixtures of {RUNS['large']['experts']} experts over {RUNS['large']['ep']} ranks in each second block, or "
            f"{RUNS['experts']['layers'] // 2} mixtures of {RUNS['experts']['experts']} experts; "
            f"{RUNS['large']['steps']} timed steps.  Runs with collectives are of a dense model; one of their ranks is "
            "slow, and the others wait for it.  The time without plots and page is that of one process, its start "
            "included.  `make bench ARGS='--ranks 4096'` merges runs of 4,096 ranks.",
        ),
    )
    return [table]


def _merge(kind: str, ranks: int, times: int) -> tuple[str, ...]:
    run = merge(kind, ranks, times)
    taken = [[cost.wall_s for cost in costs] for costs in (run.whole, run.without_plots)]
    taken.append([cost.cpu_s for cost in run.text])
    peak = max(cost.peak_bytes for cost in run.whole) / MB
    budgets = _MERGE_BUDGETS.get((kind, ranks), (None, None, None, None))
    measured = (*map(middle_half, taken), sure(peak))
    verdicts = [
        verdict(found, budget, digits) for found, budget, digits in zip(measured, budgets, _BUDGET_DIGITS, strict=True)
    ]
    collectives = RUNS[kind].get("collectives", 0)
    return (
        f"{ranks:,} ranks of {run.modules:,} modules" + (f", {collectives} collectives" if collectives else ""),
        f"{run.shard_bytes / MB:,.0f}",
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
