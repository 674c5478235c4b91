"""How many parameters the model has: exactly, as a union over ranks, and by DeepSpeed's estimate.

Every rank records the pieces that it holds.  The key of a piece is (model, name, pipeline stage, the rank's coordinates
on the axes on which ranks hold different parameters under one name).  Replicas have equal keys and count once; stages
and experts add up; a piece that tensor parallelism or FSDP shards counts with its global size.  Tied parameters count
once, and so do copies of one parameter on several stages, whose records name the original.  Models that the job only
evaluates are counted separately.

    active per token = parameters outside of experts + for each MoE layer, parameters of experts * top-k / experts

Where the stack does not report its top-k, the measured number of experts per token is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.job.stages import Pipeline
from distprof.merge.job.topology import JobTopology
from distprof.merge.load.parameters import ParameterSet, kind_of
from distprof.merge.load.rank import RankData
from distprof.merge.report import EvaluatedModel
from distprof.merge.wording import join_words
from distprof.merge.work.missing_shards import missing_coordinates
from distprof.merge.work.model_flops import LayerKey, experts_per_token, layer_key
from distprof.merge.work.suspected_experts import suspected_experts
from distprof.plain import dataclass
from distprof.records import EXPERT, KINDS, Parameter

_Key = tuple[object, ...]
#: Of the experts of a layer: no token is processed by more.
_MOST_MEASURED = 1.05


@dataclass(frozen=True)
class Totals:
    """Numbers of parameters.  Those of the whole model are None where no rank recorded parameters, and lower bounds
    unless ``covers_all``: every rank of the job recorded its parameters, and the ranks agree on them.
    """

    exact: int | None
    trainable: int | None
    by_kind: dict[str, int]  # the keys of records.KINDS that the model has
    active: int | None  # per token; None also where a top-k is neither known nor measured, or experts are suspected
    active_is_measured: bool
    covers_all: bool
    uncovered: tuple[str, ...]  # coordinates that no recorded rank covers, replicas included
    notes: tuple[str, ...]
    per_rank: dict[int, int]  # of the ranks that recorded parameters


class _Piece(NamedTuple):
    parameter: Parameter
    rank: int
    share: Fraction | None  # of the parameter that works on one token, None if not known
    measured: bool = False  # whether the share is measured, because the stack does not report it


@computed_once
def parameter_totals(analysis: Analysis) -> Totals:
    """Returns how many parameters the model and each rank have."""
    pieces, notes = _union(analysis, experts_per_token(analysis))
    recorded = [data for data in analysis.ranks if data.parameters.rank_numel is not None]
    return Totals(
        exact=sum(piece.parameter.global_numel for piece in pieces) if pieces else None,
        trainable=sum(p.parameter.global_numel for p in pieces if p.parameter.trainable) if pieces else None,
        by_kind=_by_kind(pieces),
        active=None if suspected_experts(analysis) else _active(pieces),
        active_is_measured=any(piece.measured for piece in pieces),
        covers_all=len(recorded) == analysis.run.world_size and not notes,
        uncovered=missing_coordinates(recorded, analysis.layout),
        notes=notes,
        per_rank={data.rank: data.parameters.rank_numel or 0 for data in recorded},
    )


@computed_once
def evaluated_models(analysis: Analysis) -> tuple[EvaluatedModel, ...]:
    """Returns the models that are only evaluated and have parameters, in the order of their numbers."""
    pieces: dict[int, dict[_Key, int]] = {}
    names: dict[int, str] = {}
    for data in analysis.ranks:
        if not data.evaluated.records:
            continue
        numbers = dict(data.models)
        for key, piece in _pieces(data, data.evaluated, analysis.layout, analysis.pipelines[data.rank], {}):
            root = piece.parameter.root
            model = numbers.get(root, root)
            names.setdefault(model, data.evaluated.held_as.get(root) or data.tree.roots.get(root, ""))
            own = pieces.setdefault(model, {})
            own[key] = max(own.get(key, 0), piece.parameter.global_numel)
    return tuple(EvaluatedModel(names[model], sum(pieces[model].values()), model) for model in sorted(pieces))


def evaluated_notes(analysis: Analysis) -> Iterator[str]:
    """Yields the sentence that names the models that are only evaluated."""
    models = evaluated_models(analysis)
    if models:
        what, it, its = ("is", "it", "its") if len(models) == 1 else ("are", "them", "their")
        names = join_words(list(dict.fromkeys(model.name for model in models)))
        yield (
            f"{names} {what} only evaluated: the job calls {it} without gradient, and {its} parameters are "
            "listed separately from those of trained models"
        )


def model_estimate(per_rank: Mapping[int, float], layout: JobTopology) -> float | None:
    """Returns DeepSpeed's ``per GPU * mp_size``, where "per GPU" is the mean over one model-parallel group.

    The mean is taken over the ranks of each (tp, pp) place, then over the places, so that a missing rank has no
    influence.
    """
    places: dict[tuple[int, ...], list[float]] = {}
    for rank, value in per_rank.items():
        places.setdefault(layout.piece(rank, ("tp", "pp")), []).append(value)
    means = [sum(values) / len(values) for values in places.values()]
    return sum(means) / len(means) * layout.info.sizes["mp"] if means else None


def _union(analysis: Analysis, measured: Mapping[LayerKey, float]) -> tuple[list[_Piece], tuple[str, ...]]:
    """Returns (the pieces, sentences on pieces whose sizes differ between ranks)."""
    layout = analysis.layout
    pieces: dict[_Key, _Piece] = {}
    conflicts: dict[_Key, str] = {}
    done = set()
    for data in analysis.ranks:
        # Ranks with the same parameters at the same place record the same pieces, so one of them is enough.
        pipeline = analysis.pipelines[data.rank]
        axes = data.parameters.split_axes
        places = [one.piece(data.rank, axes) for one in (layout, *layout.own.values()) if data.rank in one.coordinates]
        place = (id(data.parameters), pipeline, *places)
        if place in done:
            continue
        done.add(place)
        for key, piece in _pieces(data, data.parameters, layout, pipeline, measured):
            before = pieces.setdefault(key, piece)
            if before.parameter.global_numel != piece.parameter.global_numel:
                conflicts.setdefault(key, _conflict(before, piece))
                pieces[key] = max(before, piece, key=lambda one: one.parameter.global_numel)
    return list(pieces.values()), _first_conflict(list(conflicts.values()))


def _pieces(
    data: RankData,
    parameters: ParameterSet,
    layout: JobTopology,
    pipeline: Pipeline,
    measured: Mapping[LayerKey, float],
) -> Iterator[tuple[_Key, _Piece]]:
    shares = _shares(data, pipeline, measured)
    unknown, whole = (None, False), (Fraction(1), False)
    # A rank may have ten thousand parameters of one model, all of them split alike.
    model_of, piece_of = cache(pipeline.place), cache(lambda root, split: layout.of(root).piece(data.rank, split))
    for p in parameters.counted:
        model, stage = model_of(p.root)
        name = (model, "copies", p.shared_as) if p.shared_as else (model, stage, p.name)
        share = shares.get(p.row, unknown) if kind_of(p) == EXPERT else whole
        yield (*name, p.split, piece_of(p.root, p.split)), _Piece(p, data.rank, *share)


def _shares(
    data: RankData, pipeline: Pipeline, measured: Mapping[LayerKey, float]
) -> dict[int, tuple[Fraction | None, bool]]:
    """Returns by row inside a MoE layer (experts per token / experts of the layer, whether this is measured)."""
    found: dict[int, tuple[Fraction | None, bool]] = {}
    for layer in data.layers:
        seen = measured.get(layer_key(data, layer, pipeline))
        if seen and seen > _MOST_MEASURED * layer.num_experts:
            seen = None  # one token is several rows, as with convolutions
        per_token = layer.top_k or (Fraction(seen).limit_denominator(1000) if seen else None)
        if per_token is not None:
            share = min(Fraction(1), Fraction(per_token) / layer.num_experts)
            found |= dict.fromkeys(data.tree.subtree(layer.row), (share, not layer.top_k))
    return found


def _by_kind(pieces: list[_Piece]) -> dict[str, int]:
    totals = dict.fromkeys(KINDS, 0)
    for piece in pieces:
        kind = kind_of(piece.parameter)
        totals[kind if kind in totals else KINDS[0]] += piece.parameter.global_numel
    return {kind: numel for kind, numel in totals.items() if numel}


def _active(pieces: list[_Piece]) -> int | None:
    if not pieces or any(piece.share is None for piece in pieces):
        return None
    by_share: dict[Fraction, int] = {}  # of which there are few
    for piece in pieces:
        share = piece.share or Fraction(0)
        by_share[share] = by_share.get(share, 0) + piece.parameter.global_numel
    return round(sum(share * numel for share, numel in by_share.items()))


def _conflict(one: _Piece, other: _Piece) -> str:
    return (
        f"{one.parameter.name} has {one.parameter.global_numel:,} elements on rank {one.rank} and "
        f"{other.parameter.global_numel:,} on rank {other.rank}, which have the same coordinates: the topology in this "
        "report is wrong; the larger number is counted"
    )


def _first_conflict(conflicts: list[str]) -> tuple[str, ...]:
    """Returns the first sentence, with the number of others."""
    more = f" (and {len(conflicts) - 1:,} more parameters like it)" if len(conflicts) > 1 else ""
    return (f"{conflicts[0]}{more}",) if conflicts else ()
