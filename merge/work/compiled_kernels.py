"""Compiled code: the kernels that the compiler generated, what could not be counted, and how the code ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import BoolArray, padded
from distprof.merge.load.module_tree import RankTree
from distprof.merge.report import CompiledRegion
from distprof.rank_names import rank_names
from distprof.records import Counts

#: How the code ran: :class:`distprof.records.Counts`.
COMPILED = "compiled"
_OPTIMIZER = "(optimizer)"
#: Modules that nothing calls.
_LISTS = frozenset({"ParameterList", "ParameterDict"})
_UNSEEN = (
    "an optimizer stepped on {ranks}, but no forward of a model was seen: the model runs in a function compiled for a"
    " backend other than inductor, or the script calls its forward(); its work and forward time are n/a; call the model"
    " itself, or compile the model instead of the function around it"
)
_HIDDEN = (
    "modules of which no call was seen, because they are in compiled code or are called by their forward(), are counted"
    " with the module around them; distprof run --count-eager counts module by module what is compiled"
)
_EAGER = (
    "compiled code ran in eager mode in the counted step, and is counted module by module (count-eager): this changed"
    " the loss of that step, and with dropout also those of later steps"
)


def compiled_regions(analysis: Analysis) -> tuple[CompiledRegion, ...]:
    """Returns one region for each module, in the order of the model; kernels outside of modules come last.

    Calls are summed over all ranks.
    """
    union = analysis.union
    regions: dict[int, Counter[str]] = {}
    labels = [*(module.label for module in union.modules), "", _OPTIMIZER]
    for column, counts in _counted(analysis):
        index = union.index(column)
        for kernel in counts.generated:
            outside = labels.index(_OPTIMIZER if kernel.optimizer else "", len(union.modules))
            place = int(index[kernel.row]) if 0 <= kernel.row < len(index) else outside
            regions.setdefault(place, Counter())[kernel.name] += kernel.calls
    return tuple(CompiledRegion(labels[place], dict(sorted(regions[place].items()))) for place in sorted(regions))


def compiled_notes(analysis: Analysis) -> tuple[str, ...]:
    """Returns sentences on how compiled code ran, where it differs from other steps or from what the user asked for."""
    notes = [_EAGER] if any(counts.compiled == "eager" for _, counts in _counted(analysis)) else []
    refused: dict[str, list[int]] = {}
    for column, counts in _counted(analysis):
        if counts.eager_refused:
            refused.setdefault(counts.eager_refused, []).append(analysis.ranks[column].rank)
    for why, ranks in refused.items():
        notes.append(f"compiled code was not counted module by module on {rank_names(ranks)}: {why}")
    hides = any(
        inside_compiled(analysis.ranks[column].tree, counts).any()
        for column, counts in _counted(analysis)
        if counts.compiled == COMPILED
    )
    notes += [_HIDDEN] if hides and not refused else []
    unseen = [rank for rank, window in analysis.windows.items() if window.saw_no_forward]
    return (*notes, *([_UNSEEN.format(ranks=rank_names(unseen))] if unseen else []))


def inside_compiled(tree: RankTree, counts: Counts) -> BoolArray:
    """Returns for each row whether its work may be hidden in a compiled module above it.

    This is possible where compiled code ran as such, and a module above was called, but neither the module itself nor
    one below it.
    """
    if counts.compiled != COMPILED:
        return np.zeros(len(tree), np.bool_)
    called = padded(counts.calls, len(tree))
    within = tree.inclusive(called) > 0
    above = called > 0
    for row, module in enumerate(tree.rows):  # parents come before their children
        if module.parent >= 0:
            above[row] |= above[module.parent]
    callable_rows = np.array([module.class_name not in _LISTS for module in tree.rows], np.bool_)
    hidden: BoolArray = above & ~within & callable_rows
    return hidden


def _counted(analysis: Analysis) -> Iterator[tuple[int, Counts]]:
    """Yields (place among the ranks, counted step) of each rank that has one."""
    for column, data in enumerate(analysis.ranks):
        if data.rank in analysis.counts:
            yield column, analysis.counts[data.rank]
