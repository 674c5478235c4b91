"""Makes tables from measurements: what is measured, how often, with which budget, and the sentences of the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from bench import jobs
from bench.estimate import Estimate, middle_half, sure, verdict
from bench.process import Cost, python
from bench.scale.merging import measure_pages, merge
from bench.scale.table import Merged, scale_table
from bench.shapes import EXPERTS, MOE_TOKENS, MOE_WIDTH, NARROW, SHAPES, TOP_K
from bench.synthetic_runs import RUNS
from bench.table import MB, Table, spread


@dataclass(frozen=True)
class Effort:
    """The number of measurements of each kind."""

    pairs: dict[str, int]  # pairs of steps, by model
    narrow: int  # pairs of steps of the narrow model
    experts: tuple[int, int]  # MoE layers, pairs of their steps
    starts: int  # pairs of jobs that are only started
    jobs: int  # pairs of jobs that train
    merges: dict[tuple[str, int], int]  # (kind of run, ranks) -> how often
    pages: tuple[int, ...] = (1, 8, 256, 4096)  # ranks
    page_times: int = 5
    scale: tuple[int, int] = (256, 1024)  # ranks of two merges

    def merging(self, ranks: Sequence[int]) -> Effort:
        """Returns the same with large runs of these numbers of ranks; those beyond 512 ranks are merged once."""
        demo = {run: times for run, times in self.merges.items() if run[0] == "demo"}
        sized = {(kind, size): 3 if size <= 512 else 1 for kind in ("large", "collectives") for size in ranks}
        return replace(self, merges=demo | sized)


THOROUGH = Effort(
    pairs={"small": 600, "large": 120},
    narrow=1200,
    experts=(32, 120),
    starts=25,
    jobs=5,
    merges={("demo", 8): 5, ("large", 8): 5, ("experts", 8): 3, ("large", 512): 3, ("collectives", 512): 3},
)
QUICK = Effort(
    pairs={"small": 1},
    narrow=1,
    experts=(1, 1),
    starts=1,
    jobs=1,
    merges={("demo", 8): 1},
    pages=(8,),
    page_times=1,
    scale=(1, 2),
)

#: Budgets for the ratio of CPU times, by (variant, model).
_STEP_BUDGETS = {("quiet", "small"): 1.0, ("quiet", "large"): 1.0, ("timed", "small"): 1.08, ("timed", "large"): 1.01}
_EXPERT_BUDGETS = {"stacked": 1.02, "listed": 1.03}
_START_BUDGET_S, _HELP_BUDGET_S = 0.3, 0.3
_MEMORY_BUDGET_MB = 20
_CALL_BUDGET_BYTES = 12
_ENTRY_BUDGET_US = 5
#: (kind, ranks) -> (seconds, seconds without plots, MB), None where there is none.
_MERGE_BUDGETS: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("demo", 8): (3, 1, None),
    ("experts", 8): (10, None, None),
    ("large", 4096): (60, None, 2000),
    ("collectives", 4096): (60, None, 2000),
}
#: Seconds to open the page, by ranks.
_PAGE_BUDGETS_S = {256: 2.0}
_RECORDER_VARIANTS = ("quiet", "timed")
_VARIANTS = {
    "plain": "nothing: the noise of this machine",
    "quiet": "distprof, outside its window",
    "timed": "distprof, a timed step: everything recorded by default",
    "counted": "distprof, the one counted step",
    "hooks": "plain hooks with three timestamps a module, none kept: for comparison",
    "DeepSpeed FlopsProfiler": "DeepSpeed FlopsProfiler",
    "FlopCounterMode": "torch.utils.flop_counter.FlopCounterMode",
    "torch.profiler": "torch.profiler of CPU activity, without its work at the end",
}


def steps(effort: Effort) -> list[Table]:
    return [_steps(model, _compared(model, pairs)) for model, pairs in effort.pairs.items()]


def _compared(model: str, pairs: int, *more: str) -> dict[str, Any]:
    return _json("-m", "bench.steps", model, "--pairs", pairs, *more)


def _steps(model: str, found: dict[str, Any]) -> Table:
    plain = found["plain"]
    return Table(
        f"A training step of {plain['modules']} modules, {plain['plain_ms']:.1f} ms",
        ("variant", "CPU time / plain", "wall time / plain", "budget"),
        [(said, *_ratios(model, variant, found)) for variant, said in _VARIANTS.items()],
        (
            f"A GPT in GPT-2's layout in float32, with AdamW: {SHAPES[model]}; one thread.",
            "Steps with and without the variant alternate in one process, and each is compared with its neighbour.  "
            "The table shows the mean of the middle half of the ratios, with its 95 % interval in brackets.  The "
            "recorder is that of a rank, and writes its shard; the steps in which it finds the model and allocates its "
            "tables are not measured.  The budget is for CPU time, which other work on the machine disturbs less.",
        ),
    )


def _ratios(model: str, variant: str, found: dict[str, Any]) -> tuple[str, str, str]:
    if variant not in found:
        return "not installed", "", ""
    cpu, wall = Estimate(**found[variant]["cpu"]), Estimate(**found[variant]["wall"])
    return cpu.shown(3), wall.shown(3), verdict(cpu, _STEP_BUDGETS.get((variant, model)), 2)


def added(effort: Effort) -> list[Table]:
    """Returns the table of the added time; on a shared machine the large model's steps differ by more than that."""
    narrow = _compared("narrow", effort.narrow, "--only", *_RECORDER_VARIANTS)
    whole_ms = _compared("large", max(1, effort.narrow // 20), "--only", "plain")["plain"]["plain_ms"]
    table = Table(
        f"What is added to a step of {narrow['timed']['modules']} modules",
        ("variant", "CPU time, ms", f"(it + {whole_ms:.1f} ms) / {whole_ms:.1f} ms", "budget"),
        [(_VARIANTS[variant], *_share(narrow[variant], whole_ms, variant)) for variant in _RECORDER_VARIANTS],
        (
            "On a shared machine, steps of several hundred milliseconds differ from their neighbours by several per "
            f"cent.  So distprof is added to steps of {narrow['timed']['plain_ms']:.1f} ms here, of a narrow model "
            f"with as many modules as the larger one: {NARROW}.  Its work depends on the number of modules and not "
            "on their width, except that wide modules evict more from the caches.",
        ),
    )
    return [table]


def _share(found: dict[str, Any], whole_ms: float, variant: str) -> tuple[str, str, str]:
    """Returns (the added ms, the ratio of a step of ``whole_ms`` with and without it, the verdict on the budget)."""
    more = Estimate(**found["added_ms"])
    ratio = Estimate(*(1 + one / whole_ms for one in (more.value, more.low, more.high)))
    return more.shown(3), ratio.shown(4), verdict(ratio, _STEP_BUDGETS[variant, "large"], 2)


def experts(effort: Effort) -> list[Table]:
    """Returns the table of the cost of recording the tokens of experts."""
    layers, pairs = effort.experts
    found = {
        kind: _json("-m", "bench.moe.steps", kind, "--layers", layers, "--pairs", pairs) for kind in _EXPERT_BUDGETS
    }
    said = {
        "stacked": "experts stacked in one module of a layer",
        "listed": "experts in a list of modules",
    }
    table = Table(
        f"Tokens of {EXPERTS} experts in each of {layers} layers",
        ("model", "timed step without, ms", "CPU time with / without", "budget"),
        [(said[kind], f"{one['without_ms']:.1f}", *_expert_ratio(kind, one)) for kind, one in found.items()],
        (
            f"Top-{TOP_K}, {MOE_TOKENS} tokens, width {MOE_WIDTH}; one thread.  Both steps are timed "
            "steps with everything else that is recorded by default, and alternate in one process.",
        ),
    )
    return [table]


def _expert_ratio(kind: str, found: dict[str, Any]) -> tuple[str, str]:
    cpu = Estimate(**found["cpu"])
    return cpu.shown(3), verdict(cpu, _EXPERT_BUDGETS[kind], 2)


def start_up(effort: Effort) -> list[Table]:
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


def shards(effort: Effort) -> list[Table]:
    found = _json("-m", "bench.shards")
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
    found = _json("-m", "bench.ring")
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
            "quarters of it may be new.",
        ),
    )
    return [table]


def merges(effort: Effort) -> list[Table]:
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
    few, many = (Merged(**_json("-m", "bench.scale", "large", "--ranks", ranks)) for ranks in effort.scale)
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


def _seconds(costs: Sequence[Cost]) -> tuple[str, str]:
    return spread([cost.wall_s for cost in costs], 2), spread([cost.cpu_s for cost in costs], 2)


def _json(*arguments: object) -> dict[str, Any]:
    """Runs a part of the bench in its own process; returns the JSON of its last line."""
    found: dict[str, Any] = json.loads(python(*arguments).stdout.splitlines()[-1])
    return found
