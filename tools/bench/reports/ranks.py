"""Tables of what a rank pays beside its steps: start-up, memory, its shard, and reading torch's flight recorder."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from statistics import median

from bench import jobs
from bench.effort import Effort
from bench.estimate import middle_half, sure, verdict
from bench.process import Cost, json_of
from bench.table import MB, Table, spread

_START_BUDGET_S, _HELP_BUDGET_S = 0.3, 0.3
_MEMORY_BUDGET_MB = 20
_TOPOLOGY_BUDGETS_MS = {1_024: 20, 16_384: 100}
_CALL_BUDGET_BYTES = 12
_ENTRY_BUDGET_US = 5


def start_up(effort: Effort) -> list[Table]:
    """Returns the table of the time that recording adds to the start of a job."""
    pairs = jobs.start_up(effort.starts)
    wall = middle_half([recorded.wall_s - plain.wall_s for plain, recorded in pairs])
    cpu = middle_half([recorded.cpu_s - plain.cpu_s for plain, recorded in pairs])
    helps = [cost.wall_s for cost in jobs.help_time(effort.jobs)]
    table = Table(
        "Start-up",
        ("seconds", "wall time", "CPU time", "budget"),
        [
            ("torchrun, a script that imports torch", *_seconds([plain for plain, _ in pairs]), ""),
            ("distprof run, the same script", *_seconds([recorded for _, recorded in pairs]), ""),
            ("added", wall.shown(2), cpu.shown(2), verdict(wall, _START_BUDGET_S, 2)),
            ("distprof --help", spread(helps, 2), "", verdict(sure(median(helps)), _HELP_BUDGET_S, 2)),
        ],
        (
            "One rank.  Both alternate; *added* is the mean of the middle half of the differences, with its 95 % "
            "interval in brackets.  It is the work of the rank and of the launcher for the recording, less the time "
            "that the launcher saves: it excludes its imports, torch above all, from Python's garbage collection.",
        ),
    )
    return [table]


def memory(effort: Effort) -> list[Table]:
    """Returns the table of the memory that recording adds to a rank."""
    pairs = jobs.resident(effort.jobs, "small")
    added = [(recorded - plain) / MB for plain, recorded in pairs]
    table = Table(
        "Memory of a rank",
        ("resident set", "MB", "budget"),
        [
            ("torchrun", spread([plain / MB for plain, _ in pairs], 1), ""),
            ("distprof run", spread([recorded / MB for _, recorded in pairs], 1), ""),
            ("added", spread(added, 1), verdict(sure(median(added)), _MEMORY_BUDGET_MB, 0)),
        ],
        (f"After {jobs.STEPS} steps of the smaller model, when the default window is complete.",),
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
            "resident set after the window, with a recorder less that without one, medians.",
        ),
    )
    return [table]


def _world(shape: tuple[int, int, int], times: int) -> tuple[str, ...]:
    def measured(*more: str) -> list[dict[str, float]]:
        return [json_of("-m", "bench.scale.worlds", *shape, *more) for _ in range(times)]

    recorded, plain = measured(), measured("--plain")
    topology_ms = [1e3 * one["topology_s"] for one in recorded]
    added = (median(one["resident_bytes"] for one in recorded) - median(one["resident_bytes"] for one in plain)) / MB
    verdicts = (
        verdict(sure(median(topology_ms)), _TOPOLOGY_BUDGETS_MS.get(prod(shape)), 0),
        verdict(sure(added), _MEMORY_BUDGET_MB, 0),
    )
    ranks = f"{prod(shape):,} as {' x '.join(map(str, shape))}"
    return ranks, spread(topology_ms, 1), f"{added:.1f}", "; ".join(filter(None, verdicts))


def shards(effort: Effort) -> list[Table]:
    """Returns the table of the bytes that a rank writes."""
    found = json_of("-m", "bench.shards")
    small, large = found["small"], found["large"]
    a_call = (small["modules_bytes"] - large["modules_bytes"]) / (small["calls"] - large["calls"])
    a_turn = large["timeline_bytes"] / max(1, large["turns"])
    table = Table(
        "Size of a shard",
        ("bytes", "a timed step", "once", "budget"),
        [
            *(
                (
                    f"{one['calls']} module calls a step, {one['turns']} long turns",
                    f"{one['step_bytes']:,.0f}",
                    f"{one['once_bytes']:,.0f}",
                    "",
                )
                for one in (small, large)
            ),
            ("a module call more", f"{a_call:.1f}", "", verdict(sure(a_call), _CALL_BUDGET_BYTES, 0)),
            ("a long turn more, at most", f"{a_turn:.1f}", "", ""),
        ],
        (
            "A turn is the time from one event of a module to the next; those of 1 ms or more are kept, because a rank "
            "may have waited in them.  *Once*: the tree of modules, their parameters, and all else that does not "
            "depend on the number of steps.",
        ),
    )
    return [table]


def collectives(effort: Effort) -> list[Table]:
    """Returns the table of what reading torch's flight recorder costs."""
    found = json_of("-m", "bench.ring")
    entries, read_us, dump_us = found["entries"], 1e3 * found["read_ms"], 1e3 * found["dump_ms"]
    table = Table(
        "Reading torch's flight recorder",
        ("CPU time", "of the ring, ms", "of an entry, us", "budget"),
        [
            ("torch's dump", f"{dump_us / 1e3:.1f}", f"{dump_us / entries:.1f}", ""),
            (
                "distprof, with that",
                f"{read_us / 1e3:.1f}",
                f"{read_us / entries:.1f}",
                verdict(sure(read_us / entries), _ENTRY_BUDGET_US, 0),
            ),
        ],
        (
            f"A ring with {entries:,} entries.  It is read once, after the last timed step, and before that when three "
            "quarters of it may be new.  The rank stops for so long once a window, by what the ring holds: `distprof "
            "run` makes it 500 entries for each timed step, 5,500 by default.  Nothing of torch is cheaper: its JSON "
            "takes 1.5 to 2.5 times as long, active entries alone are all entries with gloo, and torch holds Python's "
            "lock meanwhile, so that another thread would not help.",
        ),
    )
    return [table]


def _seconds(costs: Sequence[Cost]) -> tuple[str, str]:
    return spread([cost.wall_s for cost in costs], 2), spread([cost.cpu_s for cost in costs], 2)
