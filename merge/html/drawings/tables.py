"""The tables of the page, from the sections of the report."""

from __future__ import annotations

from distprof.merge.html.drawings.collective_tables import collectives_table, waits_table
from distprof.merge.html.drawings.expert_drawings import balance_table, experts_table
from distprof.merge.html.drawings.iteration_tables import (
    bursts_table,
    hangs_table,
    long_steps_table,
    reduced_windows_table,
    warmup_table,
)
from distprof.merge.html.drawings.model import Table
from distprof.merge.html.drawings.rank_tables import hosts_table, memory_table, ranks_table
from distprof.merge.html.drawings.time_tables import phases_table, self_times_table, skew_table
from distprof.merge.html.drawings.work_tables import ops_table, pipeline_table, work_table
from distprof.merge.report import Report


def tables(report: Report) -> dict[str, Table]:
    """Returns the tables that have rows, by the names of their places on the page."""
    found = {
        "ranks": ranks_table(report),
        "hosts": hosts_table(report),
        "bursts": bursts_table(report),
        "long_steps": long_steps_table(report),
        "hangs": hangs_table(report),
        "warmup": warmup_table(report),
        "reduced_windows": reduced_windows_table(report),
        "skew_phases": skew_table(report.skew, report.skew.phases, "Phases", "phase"),
        "skew_modules": skew_table(report.skew, report.skew.modules, "Modules on which ranks disagree most", "module"),
        "collectives": collectives_table(report),
        "waits": waits_table(report),
        "experts": experts_table(report),
        "expert_balance": balance_table(report),
        "pipeline": pipeline_table(report),
        "memory": memory_table(report),
        "phases": phases_table(report),
        "classes": self_times_table(report, report.time.classes, "Classes of modules"),
        "self_times": self_times_table(report, report.time.modules, "Modules by self time"),
        "work": work_table(report),
        "ops": ops_table(report),
    }
    return {name: table for name, table in found.items() if table.rows}
