"""Tables of what a rank pays beside its steps: start-up, memory, its shard, and reading torch's flight recorder."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from bench import jobs
from bench.effort import Effort
from bench.estimate import middle_half, sure, verdict, verdicts
from bench.process import Cost, json_of
from bench.table import MB, Table

_START_BUDGET_S, _HELP_BUDGET_S = 0.3, 0.3
_MEMORY_BUDGET_MB = 20
_TOPOLOGY_BUDGETS_MS = {1_024: 20, 16_384: 100}
_CALL_BUDGET_BYTES, _ONCE_BUDGET_BYTES = 12, 20_000
_TIMED = 10  # steps of a default window
_WEEK_WINDOWS, _WEEK_BUDGET_BYTES = 7 * 24 * 60, 100_000_000
_ENTRY_BUDGET_US = 5


def start_up(effort: Effort) -> list[Table]:
    """Returns the table of the time that recording adds to the start of a job."""
    rows = []
    for name, ranks, content, pairs, budget in (
        ("one rank, a script that imports torch", 1, "import torch\n", effort.starts, _START_BUDGET_S),
        (f"{effort.node} ranks, the same script", effort.node, "import torch\n", effort.starts_of_many, 0.0),
        ("one rank, a script without torch", 1, "", effort.starts, 0.0),
    ):
        found = jobs.start_up(pairs, ranks, content)
        added = middle_half([recorded.wall_s - plain.wall_s for plain, recorded in found])
        rows.append((name, *_compared(found), added.shown(2), verdict(added, budget, 1)))
    helps = middle_half([cost.wall_s for cost in jobs.help_time(effort.jobs)])
    table = Table(
        "Start-up",
        ("seconds", "torchrun", "distprof run", "CPU time added", "wall time added", "budget"),
        [*rows, ("distprof --help", "", helps.shown(2), "", "", verdict(helps, _HELP_BUDGET_S, 2))],
        (
            "Jobs with and without distprof alternate.  The table shows the mean of the middle half, with its 95 % "
            "interval in brackets.  *Added* is the work of the rank and of the launcher for the recording, less the "
            "time that the launcher saves: it excludes its imports, torch above all, from Python's garbage collection.",
        ),
        pays=(f"a job of {effort.node} ranks on one node starts and ends {rows[1][4]} s later",),
    )
    return [table]


def _compared(found: Sequence[tuple[Cost, Cost]]) -> tuple[str, str, str]:
    """Returns wall seconds without and with distprof, and the CPU seconds that it adds."""
    plain, recorded = (middle_half([pair[side].wall_s for pair in found]) for side in (0, 1))
    added = middle_half([recorded.cpu_s - plain.cpu_s for plain, recorded in found])
    return plain.shown(2), recorded.shown(2), added.shown(2)


def memory(effort: Effort) -> list[Table]:
    """Returns the table of the memory that recording adds to a rank."""
    pairs = jobs.resident(effort.jobs, "small")
    plain, recorded = (middle_half([pair[side] / MB for pair in pairs]) for side in (0, 1))
    added = middle_half([(recorded - plain) / MB for plain, recorded in pairs])
    table = Table(
        "Memory of a rank",
        ("resident set", "MB", "budget"),
        [
            ("torchrun", plain.shown(1), ""),
            ("distprof run", recorded.shown(1), ""),
            ("added", added.shown(1), verdict(added, _MEMORY_BUDGET_MB, 0)),
        ],
        (f"After {jobs.STEPS} steps of the smaller model, when the default window is complete.",),
        pays=(f"a rank has {added.shown(0)} MB more in memory",),
    )
    return [table]


def worlds(effort: Effort) -> list[Table]:
    """Returns the table of what a rank of a large world pays."""
    table = Table(
        "A rank of a large world",
        ("ranks", "topology in the first forward, ms", "memory added, MB", "budget"),
        [_world(shape, effort.world_times) for shape in effort.worlds],
        (
            "Pipeline stages x data-parallel x tensor-parallel ranks.  One rank in one process, whose process groups "
            "are torch's fakes: tensor parallelism and FSDP 2, over named dimensions of a device mesh.  Memory: the "
            "resident set after the window, with a recorder less that without one.",
        ),
    )
    return [table]


def _world(shape: tuple[int, int, int], times: int) -> tuple[str, ...]:
    def measured(*more: str) -> list[dict[str, float]]:
        return [json_of("-m", "bench.scale.worlds", *shape, *more) for _ in range(times)]

    recorded, plain = measured(), measured("--plain")
    topology_ms = middle_half([1e3 * one["topology_s"] for one in recorded])
    added = middle_half(
        [(one["resident_bytes"] - other["resident_bytes"]) / MB for one, other in zip(recorded, plain, strict=True)]
    )
    budgets = (
        verdict(topology_ms, _TOPOLOGY_BUDGETS_MS.get(prod(shape)), 0),
        verdict(added, _MEMORY_BUDGET_MB, 0),
    )
    return f"{prod(shape):,} as {' x '.join(map(str, shape))}", topology_ms.shown(1), added.shown(1), verdicts(*budgets)


def shards(effort: Effort) -> list[Table]:
    """Returns the tables of the bytes that a rank writes."""
    found, week = json_of("-m", "bench.shards.growth"), json_of("-m", "bench.shards.week")
    small, large = found["small"], found["large"]
    a_call = (small["modules_bytes"] - large["modules_bytes"]) / (small["calls"] - large["calls"])
    a_turn = large["timeline_bytes"] / max(1, large["turns"])
    window = small["once_bytes"] + _TIMED * small["step_bytes"]
    table = Table(
        "Size of a shard",
        ("bytes", "a timed step", "once", "budget"),
        [
            *(
                (
                    f"{one['calls']} module calls a step, {one['turns']} long turns",
                    f"{one['step_bytes']:,.0f}",
                    f"{one['once_bytes']:,.0f}",
                    verdict(sure(one["once_bytes"]), budget, 0),
                )
                for one, budget in ((small, _ONCE_BUDGET_BYTES), (large, None))
            ),
            ("a module call more", f"{a_call:.1f}", "", verdict(sure(a_call), _CALL_BUDGET_BYTES, 0)),
            ("a long turn more, at most", f"{a_turn:.1f}", "", ""),
        ],
        (
            "A turn is the time from one event of a module to the next; those of 1 ms or more are kept, because a rank "
            "may have waited in them.  *Once*: the tree of modules, their parameters, and all else that does not "
            "depend on the number of steps.",
        ),
        pays=(f"a rank writes {window / 1e3:,.0f} kB for {_TIMED} timed steps of {small['calls'] + 1} modules",),
    )
    return [table, _week(week)]


def _week(found: dict[str, int]) -> Table:
    """Returns the table of a shard with windows that come back: measured parts, and their sum."""
    rest = _WEEK_WINDOWS - found["most_whole"]
    total = found["first_bytes"] + (found["most_whole"] - 1) * found["window_bytes"] + rest * found["summary_bytes"]
    return Table(
        "A shard after a week of windows",
        ("of 164 modules and 10 timed steps a window", "bytes", "budget"),
        [
            ("a shard with its first window", f"{found['first_bytes']:,}", ""),
            (f"a whole window more, at most; {found['most_whole']} are kept at once", f"{found['window_bytes']:,}", ""),
            ("the summary of an earlier window, at most", f"{found['summary_bytes']:,}", ""),
            (
                f"after {_WEEK_WINDOWS:,} windows, one a minute: the sum",
                f"{total:,}",
                verdict(sure(total), _WEEK_BUDGET_BYTES, 0),
            ),
        ],
    )


def collectives(effort: Effort) -> list[Table]:
    """Returns the table of what reading torch's flight recorder costs."""
    found = json_of("-m", "bench.ring")
    entries = found["entries"]
    rows = []
    for name, field, budget in (
        ("torch's dump", "dump_ms", None),
        ("distprof, with that", "read_ms", _ENTRY_BUDGET_US),
    ):
        whole = middle_half(found[field])
        one = middle_half([1e3 * value / entries for value in found[field]])
        rows.append((name, whole.shown(1), one.shown(1), verdict(one, budget, 0)))
    table = Table(
        "Reading torch's flight recorder",
        ("CPU time", "of the ring, ms", "of an entry, us", "budget"),
        rows,
        (
            f"A ring with {entries:,} entries.  It is read once, after the last timed step, and before that when three "
            "quarters of it may be new.  The rank stops for so long once a window, by what the ring holds: `distprof "
            "run` makes it 500 entries for each timed step, 5,500 by default.  Nothing of torch is cheaper: its JSON "
            "takes 1.5 to 2.5 times as long, active entries alone are all entries with gloo, and torch holds Python's "
            "lock meanwhile, so that another thread would not help.",
        ),
    )
    return [table]
