"""The Aggregated Profile: the classes of modules with the largest figures, at every depth of the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from distprof.merge.quantities import NOT_AVAILABLE, duration, macs, parameters
from distprof.merge.report import ModuleStats, Report
from distprof.merge.text.format.lines import heading


@dataclass
class _ClassTotal:
    """The sums over all modules of one class at one depth; None where no module has the figure."""

    params: float | None = None
    macs: float | None = None
    forward_ns: float | None = None

    def add(self, module: ModuleStats) -> None:
        self.params = _plus(self.params, module.params)
        self.macs = _plus(self.macs, module.macs)
        self.forward_ns = _plus(self.forward_ns, module.forward_ns)


def aggregated_profile(report: Report, depth: int | None, top: int) -> Iterator[str]:
    """Yields the lines of the block: the ``top`` classes at each depth, down to ``depth`` (None: all depths)."""
    yield heading(f"Aggregated Profile per {report.run.unit}")
    yield f"Top {top} modules in terms of params, MACs or fwd latency at different model depths:"
    evaluated = {model.root for model in report.model.evaluated}
    totals = _totals(report.modules, evaluated)
    for level in sorted(totals):
        if depth is None or level <= depth:
            yield f"depth {level}:"
            yield f"    params      - {_leaders(totals[level], top, lambda total: total.params, parameters)}"
            yield f"    MACs        - {_leaders(totals[level], top, lambda total: total.macs, macs)}"
            yield f"    fwd latency - {_leaders(totals[level], top, lambda total: total.forward_ns, duration)}"


def model_depths(modules: Sequence[ModuleStats]) -> list[int]:
    """Returns the depth of every module in the user's model: wrappers such as DDP do not count."""
    depths: list[int] = []
    for module in modules:
        inside = module.parent >= 0
        depths.append(depths[module.parent] + (not modules[module.parent].wrapper) if inside else 0)
    return depths


def _totals(modules: Sequence[ModuleStats], without: Collection[int]) -> dict[int, dict[str, _ClassTotal]]:
    totals: dict[int, dict[str, _ClassTotal]] = defaultdict(lambda: defaultdict(_ClassTotal))
    for module, depth in zip(modules, model_depths(modules), strict=True):
        if not module.wrapper and module.root not in without:
            totals[depth][module.class_name].add(module)
    return totals


def _leaders(
    classes: dict[str, _ClassTotal],
    top: int,
    figure: Callable[[_ClassTotal], float | None],
    text: Callable[[float | None], str],
) -> str:
    known = [(name, value) for name, total in classes.items() if (value := figure(total)) is not None]
    known.sort(key=lambda item: -item[1])
    return str({name: text(value) for name, value in known[:top]}) if known else NOT_AVAILABLE


def _plus(total: float | None, value: float | None) -> float | None:
    return total if value is None else (total or 0) + value
