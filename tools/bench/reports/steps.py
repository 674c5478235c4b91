"""Tables of the cost of a step: the variants of recording, and the tokens of experts."""

from __future__ import annotations

from typing import Any

from bench.effort import Effort
from bench.estimate import Estimate, ratio, verdict
from bench.process import json_of
from bench.shapes import EXPERTS, MOE_TOKENS, MOE_WIDTH, NARROW, SHAPES, TOP_K
from bench.table import Table

#: Budgets for the ratio of CPU times, by (variant, model).
_STEP_BUDGETS = {("quiet", "small"): 1.0, ("quiet", "large"): 1.0, ("timed", "small"): 1.05, ("timed", "large"): 1.005}
_COUNTED_BUDGET = 0.5  # of a step with FlopCounterMode
_EXPERTS = {
    "stacked": ("experts stacked in one module of a layer", 1.02),
    "listed": ("experts in a list of modules", 1.03),
}
_RECORDER_VARIANTS = ("quiet", "timed")
_COUNTER = "FlopCounterMode"
_EMPTY = "empty mode"
#: Models whose steps differ by more than distprof adds: :func:`added` tells it.
_TOLD_BY_ADDED = ("large",)
_VARIANTS = {
    "plain": "nothing: the noise of this machine",
    "quiet": "distprof, outside its window",
    "timed": "distprof, a timed step: everything recorded by default",
    "counted": "distprof, the one counted step",
    "hooks": "plain hooks with three timestamps a module, none kept: for comparison",
    "DeepSpeed FlopsProfiler": "DeepSpeed FlopsProfiler",
    _EMPTY: "a dispatch mode that only calls each op: torch's own price of counting ops in Python",
    _COUNTER: "torch.utils.flop_counter.FlopCounterMode",
    "torch.profiler": "torch.profiler of CPU activity, without its work at the end",
}


def steps(effort: Effort) -> list[Table]:
    """Returns a table for each model: its step with each variant of recording, and with other tools."""
    return [_steps(model, _compared(model, pairs)) for model, pairs in effort.pairs.items()]


def _compared(model: str, pairs: int, *more: str) -> dict[str, Any]:
    return json_of("-m", "bench.steps", model, "--pairs", pairs, *more)


def _steps(model: str, found: dict[str, Any]) -> Table:
    plain = found["plain"]
    length = f"{plain['plain_ms']:.1f} ms"
    timed, counted, profiled = (Estimate(**found[name]["cpu"]) for name in ("timed", "counted", "torch.profiler"))
    return Table(
        f"A training step of {plain['modules']} modules, {length}",
        ("variant", "CPU time / plain", "wall time / plain", "added CPU time, ms", "budget"),
        [
            *((said, *_cells(model, variant, found)) for variant, said in _VARIANTS.items()),
            *_counted_rows(model, found),
        ],
        (
            f"A GPT in GPT-2's layout in float32, with AdamW: {SHAPES[model]}; one thread.",
            "Steps with and without the variant alternate in one process, and each is compared with its neighbour.  "
            "The table shows the mean of the middle half of the ratios, with its 95 % interval in brackets.  The "
            "recorder is that of a rank, and writes its shard; the steps in which it finds the model and allocates its "
            "tables are not measured.  The budget is for CPU time, which other work on the machine disturbs less.",
        ),
        pays=() if model in _TOLD_BY_ADDED else _pays(length, timed, counted),
        saves=() if model in _TOLD_BY_ADDED else (f"torch.profiler makes that step {profiled.shown(2)} times as long",),
    )


def _pays(length: str, timed: Estimate, counted: Estimate) -> tuple[str, ...]:
    times = f"{timed.shown(3)} times as long, and the one counted step {counted.shown(1)} times"
    return (f"a timed step of {length} with many small modules takes {times}",)


def _cells(model: str, variant: str, found: dict[str, Any]) -> tuple[str, str, str, str]:
    if variant not in found:
        return "not installed", "", "", ""
    cpu, wall, added = (Estimate(**found[variant][what]) for what in ("cpu", "wall", "added_ms"))
    return cpu.shown(3), wall.shown(3), added.shown(3), verdict(cpu, _STEP_BUDGETS.get((variant, model)), 3)


def _counted_rows(model: str, found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns the rows that compare torch's own counter with the counted step, and with what no counter can beat.

    The budget is of many small modules: in wide ones most of a step is its own work, which every counter leaves as is.
    """
    budget = None if model in _TOLD_BY_ADDED else _COUNTED_BUDGET
    rows = (
        (f"distprof's counted step / {_COUNTER}'s", "counted", budget),
        (f"a dispatch mode that only calls each op / {_COUNTER}", _EMPTY, None),
        (f"nothing / {_COUNTER}", "plain", None),
    )
    return [_by_counter(said, found[variant], found[_COUNTER], budget) for said, variant, budget in rows]


def _by_counter(said: str, one: dict[str, Any], counter: dict[str, Any], budget: float | None) -> tuple[str, ...]:
    cpu, wall = (ratio(Estimate(**one[what]), Estimate(**counter[what])) for what in ("cpu", "wall"))
    return said, cpu.shown(3), wall.shown(3), "", verdict(cpu, budget, 3)


def added(effort: Effort) -> list[Table]:
    """Returns the table of the added time; on a shared machine the large model's steps differ by more than that."""
    narrow = _compared("narrow", effort.narrow, "--only", *_RECORDER_VARIANTS)
    whole_ms = _compared("large", max(1, effort.narrow // 20), "--only", "plain")["plain"]["plain_ms"]
    timed, quiet = (Estimate(**narrow[variant]["added_ms"]) for variant in ("timed", "quiet"))
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
        pays=(
            f"a timed step of {narrow['timed']['modules']} modules takes {timed.shown(2)} ms more, whatever its "
            f"length, and any other step {quiet.shown(3)} ms",
        ),
    )
    return [table]


def _share(found: dict[str, Any], whole_ms: float, variant: str) -> tuple[str, str, str]:
    """Returns (the added ms, the ratio of a step of ``whole_ms`` with and without it, the verdict on the budget)."""
    more = Estimate(**found["added_ms"])
    share = Estimate(*(1 + one / whole_ms for one in (more.value, more.low, more.high)))
    return more.shown(3), share.shown(4), verdict(share, _STEP_BUDGETS[variant, "large"], 3)


def experts(effort: Effort) -> list[Table]:
    """Returns the table of the cost of recording the tokens of experts."""
    table = Table(
        f"Tokens of {EXPERTS} experts in each of {max(effort.experts)} layers",
        ("model", "layers", "timed step without, ms", "CPU time with / without", "budget"),
        [_expert_row(kind, layers, pairs) for kind in _EXPERTS for layers, pairs in effort.experts.items()],
        (
            f"Top-{TOP_K}, {MOE_TOKENS} tokens, width {MOE_WIDTH}; one thread.  Both steps are timed "
            "steps with everything else that is recorded by default, and alternate in one process.  The cost grows "
            "with the number of layers, as the step does; short steps differ less from their neighbours, so a few "
            "layers tell more.",
        ),
    )
    return [table]


def _expert_row(kind: str, layers: int, pairs: int) -> tuple[str, ...]:
    said, budget = _EXPERTS[kind]
    found = json_of("-m", "bench.moe.steps", kind, "--layers", layers, "--pairs", pairs)
    cpu = Estimate(**found["cpu"])
    return said, f"{layers}", f"{found['without_ms']:.1f}", cpu.shown(3), verdict(cpu, budget, 3)
