"""Modules that may be MoE layers, by a name or by a config, but in which no rank understood experts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.wording import join_words, pluralise
from distprof.records import ExpertLayer, Suspect

_NAMED = 3
_NOT_ON_ALL = "by its calls it is a MoE layer on some of its ranks only"


@computed_once
def suspected_experts(analysis: Analysis) -> tuple[Suspect, ...]:
    """Returns each suspect once.  A config counts only where no rank found a MoE layer: others may have them all."""
    found: dict[str, Suspect] = {}
    for data in analysis.ranks:
        evaluated = {record.root for record in data.evaluated.records}
        for suspect in data.suspects:
            if data.tree.rows[suspect.row].root not in evaluated:
                found.setdefault(suspect.name, suspect)
    for suspect in found_by_some(analysis).values():
        found.setdefault(suspect.name, suspect)
    by_name = [suspect for suspect in found.values() if not suspect.by_config]
    if by_name or any(data.layers for data in analysis.ranks):
        return tuple(by_name)
    return tuple(found.values())


@computed_once
def found_by_some(analysis: Analysis) -> Mapping[int, Suspect]:
    """Returns by module of the union the layers without telling names that not all ranks with the module found: each
    rank looks at its own calls, and the loads of some ranks are not those of the job.
    """
    ranks: Counter[int] = Counter()
    layers: dict[int, ExpertLayer] = {}
    guessed: dict[int, list[ExpertLayer]] = {}  # many ranks share their layers
    for column, data in enumerate(analysis.ranks):
        own = guessed.setdefault(id(data.layers), [layer for layer in data.layers if layer.guessed])
        for layer in own:
            place = int(analysis.union.index(column)[layer.row])
            ranks[place] += 1
            layers[place] = layer
    if not layers:
        return {}
    holders = analysis.union.holders()
    return {
        place: Suspect(layer.name, layer.row, _NOT_ON_ALL)
        for place, layer in layers.items()
        if ranks[place] < holders[place]
    }


def why_no_active(analysis: Analysis) -> str:
    """Returns why the parameters that work on one token are not known; empty where nothing is suspected."""
    suspects = suspected_experts(analysis)
    return f"experts suspected, not understood: {_names(suspects)}" if suspects else ""


def suspect_notes(analysis: Analysis) -> Iterator[str]:
    """Yields the sentence on what is suspected."""
    suspects = suspected_experts(analysis)
    if suspects:
        yield (
            f"experts suspected, not understood: {_names(suspects)} ({suspects[0].why}); no loads of experts are shown "
            "for it, and active parameters are n/a; distprof.record_experts(layer, counts) records loads by hand"
        )


def _names(suspects: tuple[Suspect, ...]) -> str:
    names = [suspect.name for suspect in suspects[:_NAMED]]
    more = len(suspects) - _NAMED
    return join_words([*names, pluralise(more, "other module")] if more > 0 else names)
