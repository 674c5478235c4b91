"""What the compiler kept from being counted, the kernels that it made itself, and how its code ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import padded
from distprof.merge.load.module_tree import RankTree
from distprof.merge.report import CompiledRegion
from distprof.merge.wording import rank_names
from distprof.records import Counts

_OPTIMIZER = "(optimizer)"
_UNSEEN = (
    "an optimizer stepped on {ranks}, and no forward of a model was seen: it runs in a function compiled for another"
    " backend than inductor, or by a call of its forward(), and its work and forward time are n/a; call the model"
    " itself, or compile the model instead of the function around it"
)
_HIDDEN = (
    "what runs in compiled code is counted for the compiled module as a whole: the work of those inside of it is n/a;"
    " distprof run --count-eager counts it module by module"
)
_EAGER = (
    "compiled code ran in eager form in the counted step and is counted module by module (count-eager): the loss of"
    " that step moved, and with dropout those that followed"
)


def compiled_regions(analysis: Analysis) -> tuple[CompiledRegion, ...]:
    """Returns one region a module, in the order of the model, what is of no module last; calls of all ranks add up."""
    union = analysis.union
    regions: dict[int, Counter[str]] = {}
    labels = [*(module.label for module in union.modules), "", _OPTIMIZER]
    for column, counts in _counted(analysis):
        index = union.index(column)
        for kernel in counts.generated:
            nowhere = labels.index(_OPTIMIZER if kernel.optimizer else "", len(union.modules))
            place = int(index[kernel.row]) if 0 <= kernel.row < len(index) else nowhere
            regions.setdefault(place, Counter())[kernel.name] += kernel.calls
    return tuple(CompiledRegion(labels[place], dict(sorted(regions[place].items()))) for place in sorted(regions))


def compiled_notes(analysis: Analysis) -> tuple[str, ...]:
    """How compiled code ran, where that was not as ever, or not as asked for."""
    notes = [_EAGER] if any(counts.compiled == "eager" for _, counts in _counted(analysis)) else []
    refused: dict[str, list[int]] = {}
    for column, counts in _counted(analysis):
        if counts.eager_refused:
            refused.setdefault(counts.eager_refused, []).append(analysis.ranks[column].rank)
    for why, ranks in refused.items():
        notes.append(f"compiled code was not counted module by module on {rank_names(ranks)}: {why}")
    hides = any(inside_compiled(analysis.ranks[column].tree, counts).any() for column, counts in _counted(analysis))
    notes += [_HIDDEN] if hides and not refused else []
    unseen = [rank for rank, window in analysis.windows.items() if window.saw_no_forward]
    return (*notes, *([_UNSEEN.format(ranks=rank_names(unseen))] if unseen else []))


def inside_compiled(tree: RankTree, counts: Counts) -> npt.NDArray[np.bool_]:
    """By row: whether its work may be in compiled code, of which only the whole is known.

    So it is where compiled code ran as such, and neither the module nor one below it was called, but one above it was.
    """
    if counts.compiled != "compiled":
        return np.zeros(len(tree), np.bool_)
    called = padded(counts.calls, len(tree))
    within = tree.inclusive(called) > 0
    above = called > 0
    for row, module in enumerate(tree.rows):  # parents stand before their children
        if module.parent >= 0:
            above[row] |= above[module.parent]
    hidden: npt.NDArray[np.bool_] = above & ~within
    return hidden


def _counted(analysis: Analysis) -> Iterator[tuple[int, Counts]]:
    """Yields (place among the ranks, counted step) of each rank that has one."""
    for column, data in enumerate(analysis.ranks):
        if data.rank in analysis.counts:
            yield column, analysis.counts[data.rank]
