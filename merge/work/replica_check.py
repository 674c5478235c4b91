"""Checks whether ranks with the same coordinates are replicas, which hold the same parameters.

- Ranks with the same coordinates that each hold a model which the other lacks are no replicas.  They are stages of an
  undeclared pipeline, or other parts of a model.  Then there are no figures of the whole model, and no common cohort.
- Where a script uses wrappers that keep ranks equal (DDP, FSDP), trained parameters outside of them may differ between
  ranks, such as the embedding tables of a recommender.  Their total number is then between that of one rank and that
  of all ranks.

The check ignores experts, which differ between ranks, and modules that were added while the model ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.job.rank_kinds import conflicting, held_by_rank, ranks_by_holding
from distprof.merge.job.topology import INFERRED_SOURCES, JobTopology
from distprof.merge.load.parameters import Held
from distprof.merge.load.rank import RankData
from distprof.merge.load.run import LoadedRun
from distprof.merge.wording import join_words, pluralise
from distprof.merge.work.parameter_totals import Totals, parameter_totals
from distprof.plain import dataclass
from distprof.rank_names import rank_names
from distprof.records import Counts, Parameter

_PARAMS = ("params_of_model", "params_exact", "trainable_params_exact")
_WORK = ("fwd_flops_of_model",)
_SAMPLES = (
    *("samples_per_iteration", "samples_per_second", "samples_per_second_at_median"),
    *("tokens_per_iteration", "tokens_per_second"),
)


@dataclass(frozen=True)
class Doubts:
    """What cannot be known of the whole model."""

    notes: tuple[str, ...] = ()
    no_totals: Mapping[str, str] = field(default_factory=dict)  # field of the summary -> why it cannot be known
    why_no_work: str = ""  # why the work of the model cannot be known
    assumes_replicas: bool = False  # there are frozen parameters that no wrapper keeps equal, assumed to be replicas


@computed_once
def find_doubts(analysis: Analysis) -> Doubts:
    """Returns what cannot be known of the whole model because the ranks may be no replicas."""
    if analysis.layout.kinds:
        why = "ranks with the same coordinates hold different parameters, see the note above"
        notes = (_unequal_ranks(analysis.run, analysis.layout),)
        return Doubts(notes, dict.fromkeys((*_PARAMS, *_WORK, *_SAMPLES), why), why)
    return _outside_wrappers(analysis, parameter_totals(analysis))


@computed_once
def certain_totals(analysis: Analysis) -> Totals:
    """Returns the totals of parameters, without numbers of the whole model where these cannot be known."""
    totals = parameter_totals(analysis)
    if "params_exact" not in find_doubts(analysis).no_totals:
        return totals
    return replace(
        totals, exact=None, trainable=None, by_kind={}, active=None, covers_all=False, uncovered=(), notes=()
    )


# ---- ranks with different models -------------------------------------------------------------------------------------


def _unequal_ranks(run: LoadedRun, layout: JobTopology) -> str:
    places = ranks_by_holding(held_by_rank(run, layout), layout)
    by_kind, (one, other) = next((own, pair) for own in places.values() if (pair := conflicting(own)))
    ranks, others = by_kind[one], by_kind[other]
    return (
        f"{rank_names([*ranks, *others])} have the same coordinates in the topology above, but hold different "
        f"parameters: {_difference(one, other, rank_names(ranks), rank_names(others))}; they are no replicas, so "
        "figures of the whole model are n/a; if they are pipeline stages, call "
        f"{_topology_call(layout.kinds, run.world_size)}, if tensor parallel, call distprof.set_topology(tp=...)"
    )


def _difference(one: Held, other: Held, ranks: str, others: str) -> str:
    mine, theirs = (dict(parameter for model in own for parameter in model) for own in (one - other, other - one))
    for name in sorted(mine.keys() & theirs.keys()):
        if mine[name] != theirs[name]:
            return f"{name} has {mine[name]:,} elements on {ranks} and {theirs[name]:,} on {others}"
    only = ((_largest(mine, theirs), ranks), (_largest(theirs, mine), others))
    return " and ".join(f"{name} is on {on} only" for name, on in only if name)


def _largest(own: Mapping[str, int], than: Mapping[str, int]) -> str:
    """Returns the name of the largest parameter that ``own`` has and ``than`` lacks, empty for none."""
    return min(own.keys() - than.keys(), key=lambda name: (-own[name], name), default="")


def _topology_call(kinds: Mapping[int, int], world_size: int) -> str:
    """Returns the call that declares each kind as a stage, with coordinates where ranks do not imply them."""
    stages = len(set(kinds.values()))
    if len(kinds) < world_size or world_size % stages:
        return "distprof.set_topology(pp=...)"
    in_order = all(kind == rank // (world_size // stages) for rank, kind in kinds.items())
    place = "" if in_order else ', coordinates={"pp": ...}'
    return f"distprof.set_topology(pp={stages}{place})"


# ---- parameters in no wrapper ----------------------------------------------------------------------------------------


def _outside_wrappers(analysis: Analysis, totals: Totals) -> Doubts:
    layout = analysis.layout
    sizes, info = layout.info.sizes, layout.info
    if sizes["dp"] == 1 or info.sources.get("dp", info.source) not in INFERRED_SOURCES or totals.exact is None:
        return Doubts()
    found: dict[tuple[int, int, str], tuple[RankData, Parameter]] = {}
    for data in analysis.ranks:
        stage, numbers = layout.piece(data.rank, ("pp",))[0], dict(data.models)
        for parameter in data.parameters.outside_wrappers:
            model = numbers.get(parameter.root, parameter.root)
            found.setdefault((stage, model, parameter.name), (data, parameter))
    frozen = bool(found)
    found = {key: one for key, one in found.items() if one[1].trainable}
    if not found:
        return Doubts(assumes_replicas=frozen)
    more = (sizes["dp"] - 1) * sum(parameter.global_numel for _, parameter in found.values())
    own = list(dict.fromkeys(parameter.name for _, parameter in found.values()))
    names = f"{join_words(own)} {'is' if len(own) == 1 else 'are'}"
    note = (
        f"{names} trained outside of the wrappers (DDP, FSDP) that keep parameters equal on all ranks; the model has "
        f"{totals.exact:,} parameters if all ranks hold the same copy (then call "
        f"distprof.set_topology(dp={sizes['dp']})), {totals.exact + more:,} if each rank holds its own"
    )
    why = f"{pluralise(len(found), 'parameter')} may differ between ranks, see the note above"
    work = (
        why
        if any(_does_work(analysis.counts.get(data.rank), parameter.row) for data, parameter in found.values())
        else ""
    )
    return Doubts((note,), dict.fromkeys((*_PARAMS, *(_WORK if work else ())), why), work)


def _does_work(counts: Counts | None, row: int) -> bool:
    return counts is not None and row < len(counts.forward_macs) and bool(counts.forward_macs[row])
