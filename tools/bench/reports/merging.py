"""Tables of the cost of a merge: whole merges, a large one, HTA's reading of the same job, and the report's page."""

from __future__ import annotations

from bench.effort import Effort
from bench.estimate import Estimate, middle_half, ratio, verdict, verdicts
from bench.process import json_of, python
from bench.scale.large import LargeMerge, large_merge
from bench.scale.merging import measure_pages, merge
from bench.scale.table import Merged, scale_table
from bench.shapes import TRACED_STEPS
from bench.synthetic_runs import RUNS
from bench.table import MB, Table
from bench.traces.reading import Reading, read_job

#: (kind, ranks) -> (seconds, seconds without plots, CPU seconds without plots and page, MB), None where there is none.
_MERGE_BUDGETS: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("demo", 8): (1, None, 0.15, None),
    ("dense", 8): (None, None, 0.15, None),
    ("experts", 8): (10, None, None, None),
    ("large", 4096): (60, None, None, 2000),
    ("collectives", 4096): (60, None, None, 2000),
}
_BUDGET_DIGITS = (1, 1, 2, 0)
#: Of 16,384 ranks: seconds by two processes, memory of any of them, and how many times as long as reading the bytes.
_LARGE_BUDGET_S, _LARGE_BUDGET_MB, _LARGE_BUDGET_READS = 35, 1500, 3
#: Processor time by two processes, by that of one.
_SHARED_BUDGET = 1.1
_JOB_BUDGET_S = 0.15
#: The packages that read shards, reduce them, and read the command line.
_IMPORTED = ("numpy", "msgpack", "click")
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
        [
            _imports(max(effort.merges.values())),
            *(_merge(kind, ranks, times) for (kind, ranks), times in effort.merges.items()),
        ],
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


def _imports(times: int) -> tuple[str, ...]:
    """Returns the row of what no merge can do without."""
    costs = [python("-c", f"import {', '.join(_IMPORTED)}") for _ in range(times)]
    cpu = middle_half([cost.cpu_s for cost in costs])
    return f"nothing: Python starts and imports {', '.join(_IMPORTED)}", "", "", "", cpu.shown(2), "", ""


def _merge(kind: str, ranks: int, times: int) -> tuple[str, ...]:
    run = merge(kind, ranks, times)
    taken = [middle_half([cost.wall_s for cost in costs]) for costs in (run.whole, run.without_plots)]
    taken.append(middle_half([cost.cpu_s for cost in run.text]))
    peak = middle_half([cost.peak_bytes / MB for cost in run.whole])
    budgets = _MERGE_BUDGETS.get((kind, ranks), (None, None, None, None))
    said = [verdict(*one) for one in zip((*taken, peak), budgets, _BUDGET_DIGITS, strict=True)]
    collectives = RUNS[kind].get("collectives", 0)
    return (
        f"{ranks:,} ranks of {run.modules:,} modules" + (f", {collectives} collectives" if collectives else ""),
        f"{run.shard_bytes / MB:,.0f}",
        *(found.shown(2) for found in taken),
        peak.shown(0),
        verdicts(*said),
    )


def large(effort: Effort) -> list[Table]:
    """Returns the table of one merge of many ranks, beside what reading its bytes takes."""
    ranks, times = effort.large
    found = large_merge(ranks, times)
    read = middle_half(found.bytes_s)
    one, two = (middle_half([cost.wall_s for cost in costs]) for costs in found.costs.values())
    alone, shared = (middle_half([cost.cpu_s for cost in costs]) for costs in found.costs.values())
    peak = middle_half([cost.peak_bytes / MB for cost in found.costs[2]])
    reads, more = ratio(two, read), ratio(shared, alone)
    table = Table(
        f"distprof merge --no-plots of {ranks:,} ranks of 999 modules",
        ("", "seconds", "CPU time, s", "peak memory of a process, MB", "budget"),
        [
            (f"reading {found.shard_bytes / MB:,.0f} MB once, by one process", read.shown(2), "", "", ""),
            ("one process reads (--jobs 1)", one.shown(1), alone.shown(1), _peak(found, 1), ""),
            (
                "two processes read (--jobs 2)",
                two.shown(1),
                shared.shown(1),
                _peak(found, 2),
                verdicts(verdict(two, _LARGE_BUDGET_S, 0), verdict(peak, _LARGE_BUDGET_MB, 0)),
            ),
            ("two, by reading once", reads.shown(1), "", "", verdict(reads, _LARGE_BUDGET_READS, 0)),
            ("two, by one", ratio(two, one).shown(2), more.shown(2), "", verdict(more, _SHARED_BUDGET, 2)),
        ],
        (
            f"A synthetic run of {RUNS['large']['steps']} timed steps; the files are in the disk cache where that is "
            "large enough.  More cores share the work well where two processes use no more processor time than one.",
        ),
        pays=(f"merging {ranks:,} ranks takes {two.shown(0)} s on two cores",),
    )
    return [table]


def _peak(found: LargeMerge, jobs: int) -> str:
    return middle_half([cost.peak_bytes / MB for cost in found.costs[jobs]]).shown(0)


def traces(effort: Effort) -> list[Table]:
    """Returns the table of reading one job: what distprof recorded, and its traces of torch.profiler with HTA."""
    ours, theirs = read_job(effort.node, effort.readings, effort.hta)
    seconds = _seconds(ours)
    rows: list[tuple[str, ...]] = [
        ("distprof merge, without plots and page", *_read_cells(ours), verdict(seconds, _JOB_BUDGET_S, 2)),
        ("HTA: TraceAnalysis(trace_dir=...)", *(_read_cells(theirs) if theirs else ("not installed", "", "")), ""),
    ]
    table = Table(
        f"Reading {TRACED_STEPS} steps of {effort.node} ranks",
        ("", "files, MB", "seconds, process start included", "seconds without imports", "budget"),
        rows,
        (
            "One data-parallel job of the smaller model: distprof times ten steps, and then each rank traces ten more "
            "with torch.profiler of CPU activity.  distprof merges, and writes text, JSON and tables; Holistic Trace "
            "Analysis (HTA) parses the traces, and analyses nothing yet.  Its package requires JupyterLab and pytest, "
            "so it is best installed into an environment of its own: `make bench ARGS='--hta THERE/bin/python'`.",
        ),
        saves=(
            f"loading such traces of a job takes HTA {_seconds(theirs).shown(1)} s, and a merge {seconds.shown(2)} s",
        )
        if theirs
        else (),
    )
    return [table]


def _read_cells(found: Reading) -> tuple[str, str, str]:
    inner = middle_half(found.inner_s).shown(2) if found.inner_s else ""
    return f"{found.file_bytes / MB:,.1f}", _seconds(found).shown(2), inner


def _seconds(found: Reading) -> Estimate:
    return middle_half([cost.wall_s for cost in found.costs])


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
                middle_half(page.make_s).shown(2),
                middle_half(page.open_s).shown(2),
                verdict(middle_half(page.open_s), _PAGE_BUDGETS_S.get(page.ranks), 1),
            )
            for page in found
        ],
        ("Opened in Chromium without a screen, until everything is drawn.",),
    )
    return [table] if found else []
