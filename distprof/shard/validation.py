"""Checks that the fields of one record agree with each other.

The codec has checked types and ranges.  This module checks rules *between* the fields of a record: parents come before
their children, an expert's id is below the number of experts.  Nothing is checked between records, because any of them
may be lost: the row of a record may be in a tree record that is missing, so readers look rows up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from distprof.records import (
    LIMIT,
    MAX_DEPTH,
    Array,
    Collectives,
    ExpertLayers,
    ExpertLoad,
    ExpertRouting,
    Header,
    LayerRouting,
    Mesh,
    Pauses,
    Record,
    RouterFigures,
    Timeline,
    Topology,
    Tree,
)
from distprof.shard.codec import RecordError


def validate(record: Record) -> None:
    """Raises RecordError, in a few words, when the record contradicts itself."""
    why = _CHECKS.get(type(record), _no_check)(record)
    if why:
        raise RecordError(f"{record.KIND}: {why}")


def _no_check(record: Record) -> str:
    return ""


def _header(header: Header) -> str:
    return "" if header.rank < header.world_size else f"rank {header.rank} is not in a world of {header.world_size}"


def _topology(topology: Topology) -> str:
    sizes, coordinates = topology.sizes, topology.coordinates
    if sizes.keys() != coordinates.keys() or any(coordinates[axis] >= sizes[axis] for axis in sizes):
        return "the coordinates do not fit the sizes"
    if math.prod(sizes.get(axis, 1) for axis in ("dp", "tp", "pp", "cp")) > LIMIT:
        return "the sizes are those of no job"
    return "" if all(map(_is_sound_mesh, topology.meshes)) else "a mesh does not fit its shape"


def _is_sound_mesh(mesh: Mesh) -> bool:
    places = list(zip(mesh.coordinate, mesh.shape, strict=False))
    one_each = len(mesh.names) == len(mesh.shape) and len(mesh.coordinate) in (0, len(mesh.shape))
    return one_each and all(place < size for place, size in places) and math.prod(mesh.shape) <= LIMIT


def _tree(tree: Tree) -> str:
    if tree.first_row + len(tree.rows) > LIMIT:
        return f"it has more than {LIMIT} rows"
    for number, row in enumerate(tree.rows, tree.first_row):
        if row.parent >= number or (row.parent < 0) != (row.depth == 0) or row.depth > MAX_DEPTH:
            return f"row {number} at depth {row.depth} cannot have parent {row.parent}"
        if row.parent >= tree.first_row and tree.rows[row.parent - tree.first_row].depth != row.depth - 1:
            return f"row {number} at depth {row.depth} is not one below its parent"
    return ""


def _expert_layers(record: ExpertLayers) -> str:
    if sum(layer.num_experts for layer in record.layers) > LIMIT:
        return f"it has more than {LIMIT} experts"
    for layer in record.layers:
        if any(expert >= layer.num_experts for expert in layer.local_experts):
            return f"an expert's id is not below {layer.num_experts}"
        if len(set(layer.local_experts)) < len(layer.local_experts):
            return "an expert is there twice"
    return ""


def _expert_routing(record: ExpertRouting) -> str:
    for every in (record.layers, record.figures):
        if len({one.layer for one in every}) < len(every):
            return "a layer is there twice"
    return next(filter(None, [*map(_layer_routing, record.layers), *map(_router_figures, record.figures)]), "")


def _expert_load(record: ExpertLoad) -> str:
    calls = record.calls
    if len({one.layer for one in calls}) < len(calls):
        return "a layer is there twice"
    one_length = all(len(one.tokens) == len(one.largest) == len(one.hottest) for one in calls)
    fits = one_length and not any((one.largest > one.tokens).any() for one in calls)
    return "" if fits else "its calls do not fit each other"


def _layer_routing(one: LayerRouting) -> str:
    if len(one.kept_by_call) and (not len(one.routed) or len(one.kept_by_call) % len(one.routed)):
        return "its calls do not fit its experts"
    if len(one.dropped) and (
        not one.drops_known or len(one.dropped) != len(one.routed) or (one.dropped > one.routed).any()
    ):
        return "what was dropped does not fit what was routed"
    return "" if len(one.aux_loss) == (one.aux_calls > 0) else "its losses do not fit their calls"


def _router_figures(one: RouterFigures) -> str:
    if one.padding_tokens > one.masked_tokens or (len(one.padding) and not one.masked_tokens):
        return "its padding does not fit its mask"
    scored = one.scored_tokens > 0
    return "" if len(one.entropy) == scored and len(one.z_loss) <= scored else "its scores do not fit their tokens"


def _timeline(timeline: Timeline) -> str:
    turns = (timeline.turn_owner, timeline.turn_number, timeline.turn_start_ns, timeline.turn_end_ns)
    if len(set(map(len, turns))) > 1 or len(timeline.phase) != len(timeline.phase_start_ns):
        return "its arrays are not of one length"
    return "" if _are_places(timeline.phase, timeline.phase_names) else "a phase has no name"


def _collectives(record: Collectives) -> str:
    always = [record.number, record.op, record.enqueued_ns, record.input_bytes, record.output_bytes]
    always += [record.peer, record.tag, record.thread]
    if any(len(array) != len(record.group) for array in always):
        return "its arrays are not of one length"
    if any(
        len(array) not in (0, len(record.group))
        for array in (record.duration_ns, record.waited_from_ns, record.waited_until_ns)
    ):
        return "its times do not fit its entries"
    named = _are_places(record.group, record.group_names) and _are_places(record.op, record.ops)
    return "" if named else "a group or an op has no name"


def _pauses(pauses: Pauses) -> str:
    if not len(pauses.name) == len(pauses.start_ns) == len(pauses.end_ns):
        return "its arrays are not of one length"
    return "" if _are_places(pauses.name, pauses.names) else "a pause has no name"


def _are_places(places: Array, names: tuple[str, ...]) -> bool:
    """Returns whether every number is the place of a name."""
    return bool(((places >= 0) & (places < len(names))).all())


_CHECKS: dict[type[Record], Callable[[Any], str]] = {
    Header: _header,
    Topology: _topology,
    Tree: _tree,
    ExpertLayers: _expert_layers,
    ExpertLoad: _expert_load,
    ExpertRouting: _expert_routing,
    Timeline: _timeline,
    Collectives: _collectives,
    Pauses: _pauses,
}
