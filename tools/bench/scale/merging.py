"""Time and peak memory of ``distprof merge`` for synthetic runs, and size and time of the page in Chromium."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests_support import support

from bench.process import Cost, python
from bench.synthetic_runs import RUNS

#: Ranks of the analysed run; reports of more ranks are grown from it, as the tests of the page do.
_ANALYSED = 8
_TIMES = 5


@dataclass(frozen=True)
class Merge:
    """``whole``: with everything that ``distprof merge`` does by default; ``text``: without plots and page."""

    ranks: int
    modules: int
    shard_bytes: int
    whole: list[Cost]
    without_plots: list[Cost]
    text: list[Cost]


def merge(kind: str, ranks: int, times: int) -> Merge:
    """Merges a synthetic run ``times`` times in each way; its files are in the disk cache."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        here, run = Path(folder), Path(folder) / "run"
        python("-m", "bench.synthetic_runs", run, kind, "--ranks", ranks)
        command = ("-m", "distprof", "merge", run)
        python(*command, "--depth", 1, cwd=here)  # reads the code and the shards into the disk cache
        return Merge(
            ranks=ranks,
            modules=_modules(run),
            shard_bytes=sum(shard.stat().st_size for shard in run.glob("shards/*")),
            whole=[python(*command, cwd=here) for _ in range(times)],
            without_plots=[python(*command, "--no-plots", cwd=here) for _ in range(times)],
            text=[python(*command, "--no-plots", "--no-page", cwd=here) for _ in range(times)],
        )


def _modules(run: Path) -> int:
    from distprof.records import Tree
    from distprof.shard.reader import read_shard

    first = min(run.glob("shards/*"))
    return sum(len(record.rows) for record in read_shard(first).records if isinstance(record, Tree))


@dataclass(frozen=True)
class Page:
    """``open_s``: from the start of loading until everything is drawn."""

    ranks: int
    modules: int
    size: int
    make_s: list[float]
    open_s: list[float]


def measure_pages(ranks: list[int], times: int = _TIMES) -> list[Page]:
    """Returns one page for each number of ranks; none where Chromium and its driver are not installed."""
    session = support("page.browser").installed()
    if session is None:
        return []
    with session as browser, tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        return [_page(count, browser, Path(folder) / f"{count}.html", times) for count in ranks]


def _page(ranks: int, browser: Any, path: Path, times: int) -> Page:
    from distprof.merge.html.page import render_page

    shape = RUNS["large"]
    few = min(ranks, _ANALYSED)
    report = support("reports").report_of(**{**shape, "dp": few, "ep": few})
    if ranks > few:
        report = support("page.many_ranks").grown(report, ranks)
    make_s, open_s = [], []
    for _ in range(times):
        start = time.monotonic()
        path.write_bytes(render_page(report))
        make_s.append(time.monotonic() - start)
        browser.open(path)
        open_s.append(browser.run("return performance.getEntriesByName('ready')[0].startTime") / 1000)
    return Page(ranks, len(report.modules), path.stat().st_size, make_s, open_s)
