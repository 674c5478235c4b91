"""The tables of the report as plain data: the CSV and Parquet files, the page and data frames are made of them.

    Report -> all_tables -> Table (columns) -> table_files (CSV, Parquet)

Times, work and memory are those of one iteration; medians are over the timed iterations, then over ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from distprof.merge.export.tables.experts import EXPERTS
from distprof.merge.export.tables.modules import module_times_table, modules_table
from distprof.merge.export.tables.moe_layers import MOE_LAYERS
from distprof.merge.export.tables.moe_steps import MOE_STEPS
from distprof.merge.export.tables.ranks import MEMORY, STEPS, ranks_table
from distprof.merge.export.tables.table import Table
from distprof.merge.export.tables.times import COLLECTIVES, SKEW
from distprof.merge.report import Report

_MAKERS: Mapping[str, Callable[[Report], Table]] = {
    "ranks": ranks_table,
    "steps": STEPS.make,
    "modules": modules_table,
    "module_times": module_times_table,
    "experts": EXPERTS.make,
    "moe_layers": MOE_LAYERS.make,
    "moe_steps": MOE_STEPS.make,
    "skew": SKEW.make,
    "collectives": COLLECTIVES.make,
    "memory": MEMORY.make,
}
#: Rows of the largest table that is written as text, about 150 MB; a larger one is written as Parquet only.
MOST_TEXT_ROWS = 2_000_000
#: The names of all tables, in their order.
NAMES = tuple(_MAKERS)


def all_tables(report: Report) -> dict[str, Table]:
    """Returns all tables by name."""
    return {name: make(report) for name, make in _MAKERS.items()}


def text_tables(report: Report) -> dict[str, Table]:
    """Returns the tables that are written as text: all but one with more than :data:`MOST_TEXT_ROWS` rows."""
    too_long = {"module_times"} if report.module_times.forward_ns.size > MOST_TEXT_ROWS else set()
    return {name: make(report) for name, make in _MAKERS.items() if name not in too_long}


def make_one(report: Report, name: str) -> Table:
    """Returns the table with this name, one of :data:`NAMES`."""
    return _MAKERS[name](report)
