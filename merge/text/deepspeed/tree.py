"""The Detailed Profile: the model as torch prints it, every module with its numbers; repeated layers are folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from distprof.merge.quantities import (
    NOT_AVAILABLE,
    NS_PER_SECOND,
    duration,
    flops_per_second,
    macs,
    parameters,
    percentage,
    plain,
)
from distprof.merge.report import ModuleStats, Report
from distprof.merge.text.deepspeed.aggregated import model_depths
from distprof.merge.text.format.folding import children_of, same_work
from distprof.merge.text.format.lines import heading, one_line, wrapped
from distprof.merge.wording import number_series
from distprof.plain import dataclass

_MOST_DIGITS = 10  # of the number of a layer
_ORDER = (
    "Each module profile is listed after its name in the following order:",
    "params, percentage of total params, MACs, percentage of total MACs, fwd latency, percentage of total fwd latency,"
    " fwd FLOPS",
)
_NOTE = (
    "Note: the numbers of a module include those of the modules inside it, and what the module computes itself in"
    " functions such as attention or a loss.  Layers with the same structure, params and MACs are shown as one, such as"
    ' "(0-3): 4 x Block" or "(1, 3, ..., 9): 5 x MoE": MACs and latency are their mean.  In MoE layers MACs may differ.'
)


def detailed_profile(report: Report, depth: int | None) -> Iterator[str]:
    """Yields the lines of the block, down to ``depth`` (None: all depths)."""
    yield heading(f"Detailed Profile per {report.run.unit}", 30)
    yield from _ORDER
    yield ""
    yield from wrapped(_NOTE)
    yield ""
    yield from _Tree(report, depth).lines()


@dataclass(frozen=True)
class _Node:
    """Modules that are shown as one."""

    members: tuple[int, ...]  # indices of the folded modules, first to last
    indent: int
    siblings: int = 1  # how many were folded at this level: the first so many members


class _Tree:
    """Prints the tree without recursion, because the nesting in a shard may be deeper than Python's stack allows."""

    def __init__(self, report: Report, depth: int | None) -> None:
        self._modules = report.modules
        self._recorded = len(report.run.ranks)
        self._children = children_of(report.modules)
        self._kinds = same_work(report.modules, self._children, {layer.name for layer in report.experts})
        self._depths = model_depths(report.modules)
        self._limit = depth
        self._evaluated = {model.root for model in report.model.evaluated}
        roots = [module for module in report.modules if module.parent < 0 and module.root not in self._evaluated]
        self._params = _total((root.params, root.ranks) for root in roots)
        self._macs = _total((root.macs, root.ranks) for root in roots)
        self._forward_ns = _total((root.forward_ns, root.ranks) for root in roots)

    def lines(self) -> Iterator[str]:
        """Yields the lines of the whole tree, one model after the other."""
        stack: list[_Node | str] = [
            _Node((index,), 0) for index, module in reversed(list(enumerate(self._modules))) if module.parent < 0
        ]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                yield item
                continue
            inside = self._shown_inside(item)
            yield from self._open(item, has_inside=bool(inside))
            if inside:
                stack.append(" " * item.indent + ")")
                stack.extend(reversed(inside))

    def _open(self, node: _Node, *, has_inside: bool) -> Iterator[str]:
        """Yields ``(wte): Embedding(numbers)``, or the opening line and the numbers of a module with others inside."""
        margin = " " * node.indent
        opening = f"{margin}{self._title(node)}("
        if has_inside:
            yield opening
            yield f"{margin}  {self._numbers(node)}"
        else:
            yield f"{opening}{self._numbers(node)})"

    def _title(self, node: _Node) -> str:
        first = self._modules[node.members[0]]
        if node.siblings > 1:
            numbers = [int(_own_name(self._modules[member])) for member in node.members[: node.siblings]]
            return f"({number_series(numbers)}): {node.siblings} x {one_line(first.class_name)}"
        own_name = self._name_in_parent(first) or _own_label(first)
        return f"({own_name}): {one_line(first.class_name)}" if own_name else one_line(first.class_name)

    def _name_in_parent(self, module: ModuleStats) -> str:
        """Returns the name in the parent; empty for a root, and inside a wrapper, which has the same name."""
        inside = module.parent >= 0 and module.name != self._modules[module.parent].name
        return _own_name(module) if inside else ""

    def _numbers(self, node: _Node) -> str:
        module = self._modules[node.members[0]]
        if module.root in self._evaluated:
            return ", ".join([f"{parameters(module.params)} Params, evaluated only", *self._remarks(node, module)])
        forward_ns, work, flops = (
            _mean([getattr(self._modules[index], field) for index in node.members])
            for field in ("forward_ns", "macs", "flops")
        )
        per_second = flops / forward_ns * NS_PER_SECOND if flops is not None and forward_ns else None
        items = [
            f"{parameters(module.params)} = {_share(module.params, module.ranks, self._params)} Params",
            _valued(macs(work), _share(work, module.ranks, self._macs), "MACs"),
            _valued(duration(forward_ns), _share(forward_ns, module.ranks, self._forward_ns), "latency"),
            flops_per_second(per_second) if per_second is not None else f"{NOT_AVAILABLE} FLOPS",
        ]
        return ", ".join([*items, *self._remarks(node, module)])

    def _remarks(self, node: _Node, module: ModuleStats) -> Iterator[str]:
        if module.ranks < self._recorded:
            yield f"on {module.ranks} of {self._recorded} ranks"
        if module.calls > 1:
            yield f"{plain(module.calls)} calls"
        if module.extra_repr:
            yield one_line(module.extra_repr)
        hidden = 0 if self._shown_inside(node) else self._count_inside(node.members[0])
        if hidden:
            yield f"{hidden} modules inside"

    def _count_inside(self, index: int) -> int:
        count, stack = 0, list(self._children[index])
        while stack:
            count += 1
            stack.extend(self._children[stack.pop()])
        return count

    def _shown_inside(self, node: _Node) -> list[_Node]:
        """Returns the nodes inside ``node``, siblings of one kind as one; none below the depth limit."""
        children = self._children[node.members[0]]
        if not children or (self._limit is not None and self._depths[children[0]] > self._limit):
            return []
        nodes, start = [], 0
        for end in range(1, len(children) + 1):
            if end == len(children) or not self._continues(children[end - 1], children[end]):
                for places in self._alike(children, range(start, end)):
                    members = tuple(self._children[member][place] for member in node.members for place in places)
                    nodes.append(_Node(members, node.indent + 2, len(places)))
                start = end
        return nodes

    def _continues(self, before: int, after: int) -> bool:
        """Returns whether two neighbours may be folded: they have successive numbers as names."""
        names = _own_name(self._modules[before]), _own_name(self._modules[after])
        return (
            all(name.isdecimal() and len(name) < _MOST_DIGITS for name in names) and int(names[1]) == int(names[0]) + 1
        )

    def _alike(self, children: Sequence[int], places: Iterable[int]) -> Iterable[list[int]]:
        """Returns the places of the children that do the same work, those of one kind together."""
        kinds: dict[int, list[int]] = {}
        for place in places:
            kinds.setdefault(self._kinds[children[place]], []).append(place)
        return kinds.values()


def _own_label(module: ModuleStats) -> str:
    """Returns the label of a root where it differs from the class, as it does for one of several models."""
    differs = module.parent < 0 and not module.wrapper and module.label != module.class_name
    return one_line(module.label) if differs else ""


def _own_name(module: ModuleStats) -> str:
    return one_line(module.name.rpartition(".")[2])


def _valued(value: str, share: str, what: str) -> str:
    return f"{NOT_AVAILABLE} {what}" if NOT_AVAILABLE in (value, share) else f"{value} = {share} {what}"


def _share(value: float | None, ranks: int, whole: float | None) -> str:
    """Returns the share in the sum over all ranks, so that pipeline stages, each on some ranks, add up to 100%."""
    return percentage(None if value is None else value * ranks, whole)


def _total(parts: Iterator[tuple[float | None, int]]) -> float | None:
    known = [value * ranks for value, ranks in parts if value is not None]
    return sum(known) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
