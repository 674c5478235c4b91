"""How many parameters the model has: exactly, as a union over ranks, and by DeepSpeed's estimate.

Every rank names the pieces it holds.  A piece is (model, name, pipeline stage, the rank's coordinates on the axes on
which ranks hold different parameters under one name); replicas name the same piece and so count once, stages and
experts add up, and a piece that tensor parallelism or FSDP shards is counted by its global size.  Tied parameters count
once, and so do copies of one parameter on several stages, which say of what they are copies.  Models that the job only
evaluates are in none of these sums, and have their own.

    active per token = all parameters but experts', and of each layer's experts top-k / experts; where the stack does
                       not say its top-k, the experts per token that were measured
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.job.stages import Pipeline
from distprof.merge.job.topology import JobTopology
from distprof.merge.load.parameters import ParameterSet, kind_of
from distprof.merge.load.rank import RankData
from distprof.merge.report import EvaluatedModel
from distprof.merge.wording import join_words
from distprof.merge.work.missing_shards import missing_coordinates
from distprof.merge.work.model_flops import LayerKey, experts_per_token, layer_key
from distprof.records import EXPERT, KINDS, Parameter

_Key = tuple[object, ...]


@dataclass(frozen=True)
class Totals:
    """``exact`` and all that is split from it are None when no rank recorded parameters, and lower bounds unless
    ``covers_all``: every rank of the job has told its parameters, and ranks agree on them.
    """

    exact: int | None
    trainable: int | None
    by_kind: dict[str, int]  # of records.KINDS, those that are there
    active: int | None  # None also where the top-k of a layer is neither known nor measured
    active_is_measured: bool
    covers_all: bool
    uncovered: tuple[str, ...]  # coordinates of which no rank told anything; what replicas cover is none of them
    notes: tuple[str, ...]
    per_rank: dict[int, int]  # the ranks that recorded parameters


@dataclass(frozen=True)
class _Piece:
    parameter: Parameter
    rank: int
    share: Fraction | None  # of it that works on one token, None if not known
    measured: bool = False  # the share, not said by the stack


@computed_once
def parameter_totals(analysis: Analysis) -> Totals:
    """Returns how many parameters the model and each rank have."""
    pieces, notes = _union(analysis, experts_per_token(analysis))
    told = [data for data in analysis.ranks if data.parameters.rank_numel is not None]
    return Totals(
        exact=sum(piece.parameter.global_numel for piece in pieces) if pieces else None,
        trainable=sum(p.parameter.global_numel for p in pieces if p.parameter.trainable) if pieces else None,
        by_kind=_by_kind(pieces),
        active=_active(pieces),
        active_is_measured=any(piece.measured for piece in pieces),
        covers_all=len(told) == analysis.run.world_size and not notes,
        uncovered=missing_coordinates(told, analysis.layout),
        notes=notes,
        per_rank={data.rank: data.parameters.rank_numel or 0 for data in told},
    )


@computed_once
def evaluated_models(analysis: Analysis) -> tuple[EvaluatedModel, ...]:
    """Returns the models that are only evaluated and have parameters of their own, in the order of their numbers."""
    pieces: dict[int, dict[_Key, int]] = {}
    names: dict[int, str] = {}
    for data in analysis.ranks:
        numbers = dict(data.models)
        for key, piece in _pieces(data, data.evaluated, analysis.layout, analysis.pipelines[data.rank], {}):
            root = piece.parameter.root
            model = numbers.get(root, root)
            names.setdefault(model, data.evaluated.held_as.get(root) or data.tree.roots.get(root, ""))
            own = pieces.setdefault(model, {})
            own[key] = max(own.get(key, 0), piece.parameter.global_numel)
    return tuple(EvaluatedModel(names[model], sum(pieces[model].values()), model) for model in sorted(pieces))


def evaluated_notes(analysis: Analysis) -> Iterator[str]:
    """Yields the sentence that says which models are in no sum of the trained ones."""
    models = evaluated_models(analysis)
    if models:
        what, it, its = ("is", "it", "its") if len(models) == 1 else ("are", "them", "their")
        names = join_words(list(dict.fromkeys(model.name for model in models)))
        yield (
            f"{names} {what} only evaluated: the job calls {it} without gradient, and {its} parameters are "
            "listed apart from those of trained models"
        )


def of_model(per_rank: Mapping[int, float], layout: JobTopology) -> float | None:
    """DeepSpeed's ``per GPU * mp_size``, where "per GPU" is the mean over one model-parallel group.

    It is taken over the ranks of each (tp, pp) place, then over the places, so that a missing rank does not tilt it.
    """
    places: dict[tuple[int, ...], list[float]] = {}
    for rank, value in per_rank.items():
        places.setdefault(layout.piece(rank, ("tp", "pp")), []).append(value)
    means = [sum(values) / len(values) for values in places.values()]
    return sum(means) / len(means) * layout.info.sizes["mp"] if means else None


def _union(analysis: Analysis, measured: Mapping[LayerKey, float]) -> tuple[list[_Piece], tuple[str, ...]]:
    """Returns (the pieces, sentences on those whose sizes differ between ranks)."""
    layout = analysis.layout
    pieces: dict[_Key, _Piece] = {}
    quarrels: dict[_Key, str] = {}
    done = set()
    for data in analysis.ranks:
        # Ranks with the same parameters at the same place name the same pieces: once is enough.
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
                quarrels.setdefault(key, _quarrel(before, piece))
                pieces[key] = max(before, piece, key=lambda one: one.parameter.global_numel)
    return list(pieces.values()), _few(list(quarrels.values()))


def _pieces(
    data: RankData,
    parameters: ParameterSet,
    layout: JobTopology,
    pipeline: Pipeline,
    measured: Mapping[LayerKey, float],
) -> Iterator[tuple[_Key, _Piece]]:
    shares = _shares(data, pipeline, measured)
    for p in parameters.counted:
        model, stage = pipeline.place(p.root)
        name = (model, "copies", p.shared_as) if p.shared_as else (model, stage, p.name)
        share = shares.get(p.row, (None, False)) if kind_of(p) == EXPERT else (Fraction(1), False)
        yield (*name, p.split, layout.of(p.root).piece(data.rank, p.split)), _Piece(p, data.rank, *share)


def _shares(
    data: RankData, pipeline: Pipeline, measured: Mapping[LayerKey, float]
) -> dict[int, tuple[Fraction | None, bool]]:
    """By row inside a MoE layer: experts per token / experts of the layer, and whether that was measured."""
    found: dict[int, tuple[Fraction | None, bool]] = {}
    for layer in data.layers:
        seen = measured.get(layer_key(data, layer, pipeline))
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
    return round(sum(piece.parameter.global_numel * (piece.share or 0) for piece in pieces))


def _quarrel(one: _Piece, other: _Piece) -> str:
    return (
        f"{one.parameter.name} has {one.parameter.global_numel:,} elements on rank {one.rank} and "
        f"{other.parameter.global_numel:,} on rank {other.rank}, which stand at the same place: the job is parallel in "
        "another way than it was taken for; the larger number is counted"
    )


def _few(quarrels: list[str]) -> tuple[str, ...]:
    """The first, and how many more there are."""
    more = f" (and {len(quarrels) - 1:,} more parameters like it)" if len(quarrels) > 1 else ""
    return (f"{quarrels[0]}{more}",) if quarrels else ()
