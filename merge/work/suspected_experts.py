"""Modules that may be MoE layers, by a name or by a config, but in which no rank understood experts."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.wording import join_words, pluralise
from distprof.records import Suspect

_NAMED = 3


@computed_once
def suspected_experts(analysis: Analysis) -> tuple[Suspect, ...]:
    """Returns each suspect once.  A config counts only where no rank found a MoE layer: others may have them all."""
    found: dict[str, Suspect] = {}
    for data in analysis.ranks:
        evaluated = {record.root for record in data.evaluated.records}
        for suspect in data.suspects:
            if data.tree.rows[suspect.row].root not in evaluated:
                found.setdefault(suspect.name, suspect)
    by_name = [suspect for suspect in found.values() if not suspect.by_config]
    if by_name or any(data.layers for data in analysis.ranks):
        return tuple(by_name)
    return tuple(found.values())


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
