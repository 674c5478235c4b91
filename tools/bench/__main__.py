"""``make bench``: measures what distprof costs, prints the tables, and writes them to a page.

cd tools && python -m bench --out ../docs/BENCHMARKS.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.effort import QUICK, THOROUGH, Effort
from bench.machine import described
from bench.reports import merging, ranks, steps
from bench.table import Table

#: (name, what makes its tables), in the order of the page
PARTS: dict[str, Callable[[Effort], list[Table]]] = {
    "steps": steps.steps,
    "added": steps.added,
    "experts": steps.experts,
    "start-up": ranks.start_up,
    "memory": ranks.memory,
    "worlds": ranks.worlds,
    "shards": ranks.shards,
    "collectives": ranks.collectives,
    "merge": merging.merges,
    "large": merging.large,
    "traces": merging.traces,
    "scale": merging.scale,
    "page": merging.pages,
}
_PAGE = """# What distprof costs

{summary}

Made by `make bench`; compared variants were measured alternately, in one run.  Intervals are of 95 %; a budget is kept
where the whole interval keeps it, and missed where the whole interval misses it.

{machine}

{tables}"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="Measure what distprof costs.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one measurement of each part: a test of the bench, without meaning for the cost",
    )
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="some of the parts")
    parser.add_argument(
        "--ranks", type=int, nargs="+", help="sizes of the merged runs; 4096 takes 2 GB of disk  [default: 8 512]"
    )
    parser.add_argument("--hta", default="", metavar="PYTHON", help="a Python that has HolisticTraceAnalysis")
    parser.add_argument("--out", type=Path, help="write the page to this file, too")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else THOROUGH
    effort = replace(effort, hta=arguments.hta)
    if arguments.ranks:
        effort = effort.merging(arguments.ranks)
    machine = described()
    tables = [table for name in arguments.only for table in _measured(name, effort)]
    if arguments.out:
        page = _PAGE.format(summary=summary(tables), machine=machine, tables="\n".join(map(str, tables)))
        arguments.out.write_text(page, encoding="utf-8")


def summary(tables: Sequence[Table]) -> str:
    """Returns in one paragraph what a user pays and saves, as far as it was measured."""
    parts = []
    for who, clauses in (
        ("What you pay:", [clause for table in tables for clause in table.pays]),
        ("What you save:", [clause for table in tables for clause in table.saves]),
    ):
        if clauses:
            parts.append(f"**{who}** {'; '.join(clauses)}.")
    return "  ".join(parts)


def _measured(name: str, effort: Effort) -> list[Table]:
    print(f"bench: {name}", file=sys.stderr, flush=True)
    tables = PARTS[name](effort)
    print("\n".join(map(str, tables)), flush=True)
    return tables


if __name__ == "__main__":
    main()
