"""Hypothesis strategies for records and shards, built from the dataclasses: a new field is covered as it is added.

``records(Step)`` gives steps, ``records()`` gives any kind but the header, ``shards()`` gives (records, their bytes).
Records are valid by the rules of :mod:`distprof.shard.validation`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from distprof.records import (
    INT64,
    RECORDS,
    Amount,
    Bounds,
    Collectives,
    ExpertLayer,
    ExpertLoad,
    ExpertRouting,
    Header,
    LayerCalls,
    LayerRouting,
    Mesh,
    ModuleRow,
    Pauses,
    Record,
    RouterFigures,
    Timeline,
    Topology,
    Tree,
)
from distprof.shard.writer import MemorySink, ShardWriter

#: Settings of property tests: without a deadline, because the machine may be busy.
patient = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

AXES = ("dp", "tp", "pp", "cp", "ep", "mp")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SMALL = 6  # entries in a sequence, items in an array


def records(*kinds: type[Record]) -> st.SearchStrategy[Record]:
    """Returns records of these kinds; without arguments, of every kind but the header."""
    return st.one_of([_of(kind) for kind in kinds or set(RECORDS.values()) - {Header}])


@st.composite
def shards(draw: st.DrawFn) -> tuple[list[Record], bytes]:
    """Draws a shard as a list of records, header first, and as the bytes that the writer makes of them."""
    content = [draw(records(Header)), *draw(st.lists(records(), max_size=8))]
    return content, written(content)


def written(content: Iterable[Record]) -> bytes:
    """Returns the bytes of a shard of these records, the first of which is its header."""
    sink = MemorySink()
    writer = ShardWriter(sink)
    for record in content:
        writer.write(record)
    return bytes(sink.data)


def _of(record: type) -> st.SearchStrategy[Any]:
    return _SOUND.get(record, _any)(record)


def _any(record: type, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Builds each field from its type hint, or by its strategy in ``given``."""
    hints = typing.get_type_hints(record, include_extras=True)
    chosen = {
        field.name: given[field.name] if field.name in given else _field(field, hints[field.name])
        for field in dataclasses.fields(record)
    }
    return st.builds(record, **chosen)


def _field(field: dataclasses.Field[Any], hint: Any) -> st.SearchStrategy[Any]:
    if "dtype" in field.metadata:
        small = arrays(field.metadata["dtype"])
        if field.metadata["rounded"]:
            small = small.map(lambda array: array % (1 << 24))  # what is written exactly
        return st.one_of(small, _large_amounts()) if field.metadata["amounts"] else small
    return _value(hint)


def arrays(dtype: str) -> st.SearchStrategy[Any]:
    if np.dtype(dtype).kind == "f":
        numbers: st.SearchStrategy[Any] = st.floats(allow_nan=False, width=64)
    else:
        limits = np.iinfo(dtype)
        numbers = st.integers(int(limits.min), int(limits.max))
    return st.lists(numbers, max_size=SMALL).map(lambda values: np.array(values, dtype))


def _large_amounts() -> st.SearchStrategy[Any]:
    return st.lists(_value(Amount), max_size=SMALL).map(lambda values: np.array(values, object))


def _value(hint: Any) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return st.lists(_value(arguments[0]), max_size=SMALL).map(tuple)
    if origin is dict:
        return st.dictionaries(_value(arguments[0]), _value(arguments[1]), max_size=SMALL)
    if origin is typing.Annotated:
        return _ints(arguments[1])
    if dataclasses.is_dataclass(hint):
        return _of(hint)  # type: ignore[arg-type]
    return {int: _ints(INT64), str: text, bool: st.booleans()}[hint]


def _ints(bounds: Bounds) -> st.SearchStrategy[int]:
    return st.integers(bounds.low, bounds.high)


def _header(record: type) -> st.SearchStrategy[Any]:
    rank_and_world = st.integers(1, 1 << 20).flatmap(lambda world: st.tuples(st.integers(0, world - 1), st.just(world)))
    fixed = {"magic": st.just(Header.magic), "schema": st.just(Header.schema)}
    return st.tuples(_any(record, **fixed), rank_and_world).map(
        lambda pair: dataclasses.replace(pair[0], rank=pair[1][0], world_size=pair[1][1])
    )


def _places(names: st.SearchStrategy[list[str]]) -> st.SearchStrategy[dict[str, tuple[int, int]]]:
    """Returns name -> (size, coordinate); the product of the sizes is small enough."""
    place = st.integers(1, 16).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))
    return names.flatmap(lambda chosen: st.fixed_dictionaries(dict.fromkeys(chosen, place)))


def _mesh(record: type) -> st.SearchStrategy[Any]:
    def build(places: dict[str, tuple[int, int]], member: bool) -> Mesh:
        sizes, coordinate = tuple(s for s, _ in places.values()), tuple(c for _, c in places.values())
        return Mesh(tuple(places), sizes, coordinate if member else ())

    return st.builds(build, _places(st.lists(text, unique=True, max_size=4)), st.booleans())


def _topology(record: type) -> st.SearchStrategy[Any]:
    def build(topology: Topology, places: dict[str, tuple[int, int]]) -> Topology:
        sizes, coordinates = {axis: s for axis, (s, _) in places.items()}, {axis: c for axis, (_, c) in places.items()}
        return dataclasses.replace(topology, sizes=sizes, coordinates=coordinates)

    return st.builds(build, _any(record), _places(st.just(list(AXES))))


@st.composite
def _trees(draw: st.DrawFn, record: type) -> Tree:
    first = draw(st.integers(0, 100))
    rows: list[ModuleRow] = []
    for row in draw(st.lists(_any(ModuleRow), max_size=8)):
        parent = draw(st.integers(-1, len(rows) - 1))
        depth = rows[parent].depth + 1 if parent >= 0 else 0
        rows.append(dataclasses.replace(row, parent=parent + first if parent >= 0 else -1, depth=depth))
    return Tree(first, tuple(rows))


@st.composite
def _expert_layer(draw: st.DrawFn, record: type) -> ExpertLayer:
    experts = draw(st.integers(1, 64))
    local = draw(st.lists(st.integers(0, experts - 1), unique=True, max_size=SMALL))
    return dataclasses.replace(draw(_any(record)), num_experts=experts, local_experts=tuple(local))


@st.composite
def _layer_routing(draw: st.DrawFn, record: type) -> LayerRouting:
    routed, calls, known = draw(arrays("<u4")), draw(st.integers(0, 3)), draw(st.booleans())
    loss = [draw(st.floats(allow_nan=False))] if calls else []
    dropped = routed // 2 if known and draw(st.booleans()) else routed[:0]
    by_call = np.tile(routed, draw(st.integers(0, 3)))
    base = LayerRouting(draw(st.integers(0, 64)), routed, known, dropped, np.array(loss, "<f8"), calls)
    return dataclasses.replace(base, kept_by_call=by_call, capacity=draw(st.integers(0, 9)))


@st.composite
def _layer_calls(draw: st.DrawFn, record: type) -> LayerCalls:
    largest = draw(arrays("<u4"))
    return LayerCalls(draw(st.integers(0, 64)), largest, largest // 2, largest % 3)


@st.composite
def _expert_load(draw: st.DrawFn, record: type) -> ExpertLoad:
    calls = draw(st.lists(_layer_calls(LayerCalls), max_size=SMALL, unique_by=lambda one: one.layer))
    return dataclasses.replace(draw(_any(record, calls=st.just(()))), calls=tuple(calls))


@st.composite
def _expert_routing(draw: st.DrawFn, record: type) -> ExpertRouting:
    layers = draw(st.lists(_layer_routing(LayerRouting), max_size=SMALL, unique_by=lambda one: one.layer))
    figures = draw(st.lists(_router_figures(RouterFigures), max_size=SMALL, unique_by=lambda one: one.layer))
    return ExpertRouting(draw(st.integers(0, 100)), tuple(layers), draw(st.integers(0, 3)), tuple(figures))


@st.composite
def _router_figures(draw: st.DrawFn, record: type) -> RouterFigures:
    masked, scored = draw(st.integers(0, 1000)), draw(st.integers(0, 1000))
    sums = [[draw(st.floats(0, 9))] if scored and seen else [] for seen in (True, draw(st.booleans()))]
    entropy, z_loss = (np.array(one, "<f8") for one in sums)
    padding = draw(arrays("<u4")) if masked else np.zeros(0, "<u4")
    return RouterFigures(draw(st.integers(0, 64)), masked, masked // 2, padding, scored, entropy, z_loss)


@st.composite
def _alike(draw: st.DrawFn, record: type) -> Any:
    """Draws a record whose arrays have one length, and whose indices are in its lists of names."""
    length, names = draw(st.integers(0, SMALL)), ("first", "second")
    places = dict.fromkeys(("group", "op", "phase", "name"), 1)
    given: dict[str, Any] = {
        field.name: st.lists(
            st.integers(0, places.get(field.name, (1 << 31) - 1)), min_size=length, max_size=length
        ).map(partial(np.array, dtype=field.metadata["dtype"]))
        for field in dataclasses.fields(record)
        if "dtype" in field.metadata
    }
    lists = dict.fromkeys(("group_names", "ops", "phase_names", "names"), st.just(names))
    known = {field.name for field in dataclasses.fields(record)}
    return draw(_any(record, **given, **{name: value for name, value in lists.items() if name in known}))


_SOUND: dict[type, Any] = {
    Header: _header,
    Mesh: _mesh,
    Topology: _topology,
    Tree: _trees,
    ExpertLayer: _expert_layer,
    ExpertLoad: _expert_load,
    ExpertRouting: _expert_routing,
    LayerCalls: _layer_calls,
    LayerRouting: _layer_routing,
    RouterFigures: _router_figures,
    **dict.fromkeys((Timeline, Collectives, Pauses), _alike),
}
