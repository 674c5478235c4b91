"""Models that a training job only evaluates, such as a frozen encoder or a copy that is tested.

A root is evaluated only if its rank met it in a forward without gradient, no optimizer steps a parameter of it, and in
the rank's training records it has neither calls nor backward (forwards without gradient inside training are not looked
into).  A rank without training records follows the other ranks.  Ranks may meet these models in another order, or not
at all, so trained models are numbered first, and evaluated ones behind them by class, alike on all ranks.
"""

from __future__ import annotations

from collections import Counter as Occurrences
from collections.abc import Iterable, Sequence
from dataclasses import replace

from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.rank import RankData
from distprof.records import TRAINING

#: (class of the root, which one of several of that class on its rank)
_Model = tuple[str, int]


def with_evaluated_apart(ranks: Sequence[RankData]) -> tuple[RankData, ...]:
    """Returns the ranks with the parameters of models that are only evaluated apart from those of the trained ones."""
    found = {data.rank: _evaluated_roots(data) for data in ranks if data.ran(TRAINING)}
    alike = {(root, data.tree.roots.get(root)) for data in ranks for root in found.get(data.rank, ())}
    for data in ranks:
        if data.rank not in found:
            followed = {root for root in data.parameters.met_evaluated if (root, data.tree.roots.get(root)) in alike}
            found[data.rank] = frozenset(followed) if _holds_others(data, followed) else frozenset()
    if not any(found.values()):
        return tuple(ranks)
    return _split(ranks, found)


def _evaluated_roots(data: RankData) -> frozenset[int]:
    """Of a rank that trains; none where it is not known which of its models it trains."""
    found = data.parameters.met_evaluated - data.at_work
    trained = any(record.parameters for record in data.parameters.records if record.root in data.at_work)
    return found if trained else frozenset()


def _holds_others(data: RankData, roots: Iterable[int]) -> bool:
    """Whether the rank has parameters of models other than ``roots``."""
    return any(record.parameters for record in data.parameters.records if record.root not in roots)


def _split(ranks: Sequence[RankData], found: dict[int, frozenset[int]]) -> tuple[RankData, ...]:
    numbers: dict[_Model, int] = {}
    first = max(len(data.tree.roots.keys() - found[data.rank]) for data in ranks)
    sets: dict[tuple[int, frozenset[int]], tuple[ParameterSet, ParameterSet]] = {}
    split = []
    for data in ranks:
        roots = found[data.rank]
        key = id(data.parameters), roots
        if key not in sets:
            sets[key] = data.parameters.split(roots)
        trained, evaluated = sets[key]
        models = {root: number for number, root in enumerate(sorted(data.tree.roots.keys() - roots))}
        models |= {
            root: first + numbers.setdefault(model, len(numbers)) for root, model in _by_class(data.tree, roots).items()
        }
        split.append(replace(data, parameters=trained, evaluated=evaluated, models=tuple(models.items())))
    return tuple(split)


def _by_class(tree: RankTree, roots: frozenset[int]) -> dict[int, _Model]:
    seen: Occurrences[str] = Occurrences()
    models: dict[int, _Model] = {}
    for root in sorted(roots):
        kind = tree.roots.get(root, "")
        models[root] = kind, seen[kind]
        seen[kind] += 1
    return models
