"""Tests of payloads: what was written is read back, and what does not fit is refused with the field's name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from support.records import patient, records

from distprof.records import (
    LIMIT,
    MAX_DEPTH,
    RECORDS,
    Collectives,
    Counts,
    DeviceWork,
    End,
    ExpertLayer,
    ExpertLayers,
    ExpertLoad,
    ExpertRouting,
    Header,
    LayerCalls,
    LayerRouting,
    Mesh,
    ModuleRow,
    Pauses,
    Record,
    Step,
    Timeline,
    Topology,
    Tree,
)
from distprof.shard.codec import RecordError, from_payload, to_json, to_payload
from distprof.shard.validation import validate

STEP = Step(
    3, "training", 5, 7, {"other": 7}, 1, 2, 2, 100, "rss", np.arange(3, dtype="<u4"), np.arange(3), np.arange(2)
)


def through_msgpack(record: Record) -> Any:
    return msgpack.unpackb(msgpack.packb(to_payload(record)))


@patient
@given(records(*RECORDS.values()))
def test_what_was_written_comes_back(record: Record) -> None:
    back = from_payload(record.KIND, through_msgpack(record))
    validate(back)
    assert back == record
    assert type(back) is type(record)


@patient
@given(records(*RECORDS.values()))
def test_json_holds_every_field_and_nothing_that_json_cannot(record: Record) -> None:
    plain = json.loads(json.dumps(to_json(record), allow_nan=False))
    assert list(plain) == list(to_payload(record))


def test_arrays_travel_as_little_endian_bytes() -> None:
    payload = to_payload(STEP)
    assert payload["calls"] == b"\0\0\0\0\1\0\0\0\2\0\0\0"
    assert payload["backward_ns"] == bytes(4) + b"\0\0\x80\x3f"  # 0 and 1 as floats
    assert through_msgpack(Timeline(1, "training", turn_start_ns=np.arange(2)))["turn_start_ns"][8:] == b"\1" + bytes(7)
    big_endian = Counts(1, "training", 1, 1, np.array([1, 258], ">u4"))
    assert to_payload(big_endian)["calls"] == b"\1\0\0\0\2\1\0\0"
    assert to_payload(Counts(1, "training", 1, 1, [1, 258]))["calls"] == b"\1\0\0\0\2\1\0\0"  # type: ignore[arg-type]
    assert to_payload(Counts(1, "training", 1, 1, []))["calls"] == b""  # type: ignore[arg-type]


def test_arrays_keep_their_dtype_and_are_read_only() -> None:
    back = from_payload("step", through_msgpack(STEP))
    assert isinstance(back, Step)
    assert (back.calls.dtype.str, back.forward_ns.dtype.str) == ("<u4", "<i8")
    with pytest.raises(ValueError, match="read-only"):
        back.calls[0] = 1


@pytest.mark.parametrize(
    "array",
    [np.array([-1]), np.array([1 << 32]), np.array([0.5]), np.zeros((2, 2), "<u4"), np.array(1), np.array(["a"])],
)
def test_an_array_that_would_change_on_its_way_is_refused(array: Any) -> None:
    with pytest.raises(RecordError, match="calls: not a one-dimensional array of numbers that <u4 can hold"):
        to_payload(Counts(1, "training", 1, 1, array))


def test_amounts_beyond_64_bits_travel_as_their_digits() -> None:
    large = 1 << 70
    work = (DeviceWork("meta", "", 0, "fp32", large, 7),)
    counts = Counts(1, "training", 1, 1, forward_macs=np.array([1, large], object), device_work=work)
    payload = through_msgpack(counts)
    assert payload["forward_macs"] == [1, "1180591620717411303424"]
    assert payload["device_work"][0]["model_macs"] == "1180591620717411303424"
    back = from_payload("counts", payload)
    assert isinstance(back, Counts)
    assert (back.forward_macs.tolist(), back.device_work) == ([1, large], work)
    assert json.loads(json.dumps(to_json(back)))["forward_macs"] == [1, large]


def test_times_of_modules_are_rounded_to_what_4_bytes_hold() -> None:
    exact, large, hour = 123, (1 << 24) + 1, 3_600_000_000_001
    back = from_payload("step", through_msgpack(replace(STEP, forward_ns=np.array([exact, large, hour]))))
    assert isinstance(back, Step)
    assert back.forward_ns.tolist() == [exact, large - 1, int(np.float32(hour))]
    assert abs(back.forward_ns[2] - hour) < 6e-8 * hour
    assert len(through_msgpack(STEP)["forward_ns"]) == 4 * len(STEP.forward_ns)


@pytest.mark.parametrize("wrong", [np.array([0.5]), np.zeros((1, 1), int)])
def test_times_that_are_no_whole_numbers_are_refused(wrong: Any) -> None:
    with pytest.raises(RecordError, match="forward_ns: not a one-dimensional array of whole numbers"):
        to_payload(replace(STEP, forward_ns=wrong))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2.0**63])
def test_times_of_a_hostile_file_are_refused(wrong: float) -> None:
    with pytest.raises(RecordError, match=r"step\.forward_ns: a number is not finite"):
        from_payload("step", bent(STEP, forward_ns=np.array([1.0, wrong], "<f4").tobytes()))


@pytest.mark.parametrize("wrong", ["", "-1", "1e30", "\u0663", "9" * 41, -1, 1 << 63, 1.0, True, None, b"1"])
def test_what_is_no_amount_is_refused(wrong: object) -> None:
    for fields in ({"forward_macs": [wrong]}, {"outside": {"forward_macs": wrong}}):
        with pytest.raises(RecordError):
            from_payload("counts", bent(Counts(1, "training", 1, 1), **fields))


def test_json_has_arrays_as_lists() -> None:
    assert to_json(STEP)["calls"] == [0, 1, 2]
    tree = Tree(0, (ModuleRow("", "Net", 0, -1, 0),))
    assert to_json(tree)["rows"][0]["class_name"] == "Net"


def bent(record: Record, **fields: object) -> dict[str, Any]:
    return {**through_msgpack(record), **fields}


HEADER = Header("run", 1, 2)
TREE = Tree(0, (ModuleRow("", "Net", 0, -1, 0), ModuleRow("a", "Linear", 0, 0, 1)))


@pytest.mark.parametrize(
    ("record", "fields", "why"),
    [
        (HEADER, {"rank": "1"}, "header.rank: expected int, found str"),
        (HEADER, {"rank": True}, "header.rank: expected int, found bool"),
        (HEADER, {"rank": 1.0}, "header.rank: expected int, found float"),
        (HEADER, {"rank": -1}, "header.rank: -1 is not in 0 ... "),
        (HEADER, {"world_size": 0}, "header.world_size: 0 is not in 1 ... "),
        (HEADER, {"world_size": LIMIT + 1}, "header.world_size: 1048577 is not in 1 ... 1048576"),
        (HEADER, {"pid": 1 << 63}, "header.pid: 9223372036854775808 is not in 0 ... 9223372036854775807"),
        (HEADER, {"run_id": b"run"}, "header.run_id: expected str, found bytes"),
        (HEADER, {"schema": [1, "0"]}, "header.schema: expected int, found str"),
        (HEADER, {"schema": None}, "header.schema: expected list, found NoneType"),
        (STEP, {"calls": b"\0" * 5}, "step.calls: 5 bytes are no whole number of <u4"),
        (STEP, {"calls": [1, 2]}, "step.calls: expected bytes, found list"),
        (STEP, {"phases_ns": {"other": float("nan")}}, "step.phases_ns: expected int, found float"),
        (STEP, {"phases_ns": {"other": 1 << 63}}, "step.phases_ns: 9223372036854775808 is not in -9223372036854775808"),
        (STEP, {"phases_ns": {b"other": 1}}, "step.phases_ns: expected str, found bytes"),
        (STEP, {"mode": msgpack.Timestamp(1)}, "step.mode: expected str, found Timestamp"),
        (STEP, {"mode": msgpack.ExtType(3, b"")}, "step.mode: expected str, found ExtType"),
        (TREE, {"rows": [{"name": ""}]}, "tree.rows: field 'class_name' is missing"),
        (TREE, {"rows": [[]]}, "tree.rows: expected dict, found list"),
        (TREE, {"rows": [bent(HEADER)]}, "tree.rows: field 'name' is missing"),
        (
            TREE,
            {"rows": [{**through_msgpack(TREE)["rows"][0], "wrapper": 1}]},
            "tree.rows.wrapper: expected bool, found int",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(record: Record, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(RecordError) as caught:
        from_payload(record.KIND, bent(record, **fields))
    assert str(caught.value).startswith(why)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(RecordError, match=r"^end: field 'iterations' is missing$"):
        from_payload("end", {"reason": "exit"})


@pytest.mark.parametrize("payload", [None, 1, [], "end", b"", [{"reason": "exit"}]])
def test_a_payload_that_is_no_map_is_refused(payload: object) -> None:
    with pytest.raises(RecordError, match=r"^end: expected dict, found "):
        from_payload("end", payload)


def test_unknown_and_absent_fields() -> None:
    payload = {"run_id": "run", "rank": 0, "world_size": 1, "colour": {"deep": [1, [2]]}, "when": msgpack.Timestamp(1)}
    assert from_payload("header", payload) == Header("run", 0, 1)


def tree(*rows: tuple[int, int], first_row: int = 0) -> Tree:
    return Tree(first_row, tuple(ModuleRow(f"m{n}", "M", 0, parent, depth) for n, (parent, depth) in enumerate(rows)))


def topology(sizes: dict[str, int], coordinates: dict[str, int], *meshes: Mesh) -> Topology:
    return Topology("declared", sizes, coordinates, meshes)


def layers(*layers: tuple[int, tuple[int, ...]]) -> ExpertLayers:
    return ExpertLayers(tuple(ExpertLayer("moe", 0, experts, local) for experts, local in layers))


def loads(tokens: list[int], largest: list[int], hottest: list[int], layers: tuple[int, ...] = (0,)) -> ExpertLoad:
    arrays = [np.array(values, "<u4") for values in (tokens, largest, hottest)]
    return ExpertLoad(6, np.zeros(4, "<i8"), calls=tuple(LayerCalls(layer, *arrays) for layer in layers))


def by_call(numbers: int) -> ExpertRouting:
    return ExpertRouting(6, (LayerRouting(0, np.zeros(2, "<u4"), kept_by_call=np.zeros(numbers, "<u4")),))


def collectives(*, group: int = 0, op: int = 0, moments: int = 1, durations: int = 0) -> Collectives:
    one, times = np.zeros(1, "<i8"), np.zeros(moments, "<i8")
    return Collectives(
        *(6, "training", ("0",), ("all_reduce",), one + group, one, one + op, times, one, one, one, one, one),
        duration_ns=np.zeros(durations, "<i8"),
    )


def timeline(*, phase: int = 0, owners: int = 1) -> Timeline:
    one = np.zeros(1, "<i8")
    return Timeline(6, "training", 0, 9, ("other",), one + phase, one, np.zeros(owners, "<i4"), one, one, one)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Header("run", 2, 2), "header: rank 2 is not in a world of 2"),
        (tree((0, 1)), "tree: row 0 at depth 1 cannot have parent 0"),
        (tree((-1, 0), (2, 1)), "tree: row 1 at depth 1 cannot have parent 2"),
        (tree((-1, 0), (5, 1), first_row=4), "tree: row 5 at depth 1 cannot have parent 5"),
        (tree((-1, 1)), "tree: row 0 at depth 1 cannot have parent -1"),
        (tree((-1, 0), (0, 0)), "tree: row 1 at depth 0 cannot have parent 0"),
        (tree((-1, 0), (0, 2)), "tree: row 1 at depth 2 is not one below its parent"),
        (tree((3, MAX_DEPTH + 1), first_row=4), f"tree: row 4 at depth {MAX_DEPTH + 1} cannot have parent 3"),
        (tree((-1, 0), (-1, 0), first_row=LIMIT - 1), f"tree: it has more than {LIMIT} rows"),
        (topology({"dp": 2}, {}), "topology: the coordinates do not fit the sizes"),
        (topology({"dp": 2}, {"dp": 2}), "topology: the coordinates do not fit the sizes"),
        (topology({"dp": LIMIT, "pp": 2}, {"dp": 0, "pp": 0}), "topology: the sizes are those of no job"),
        (topology({}, {}, Mesh(("dp",), (2, 2), (0, 0))), "topology: a mesh does not fit its shape"),
        (topology({}, {}, Mesh(("dp",), (2,), (2,))), "topology: a mesh does not fit its shape"),
        (topology({}, {}, Mesh(("dp", "tp"), (2, 2), (0,))), "topology: a mesh does not fit its shape"),
        (topology({}, {}, Mesh(("dp", "tp"), (LIMIT, 2), ())), "topology: a mesh does not fit its shape"),
        (layers((4, (0, 4))), "expert_layers: an expert's id is not below 4"),
        (layers((4, (1, 1))), "expert_layers: an expert is there twice"),
        (layers((LIMIT, ()), (1, ())), f"expert_layers: it has more than {LIMIT} experts"),
        (loads([2, 2], [1], [0]), "expert_load: its calls do not fit each other"),
        (loads([2], [3], [0]), "expert_load: its calls do not fit each other"),
        (loads([2], [1], [0], layers=(0, 0)), "expert_load: a layer is there twice"),
        (by_call(3), "expert_routing: its calls do not fit its experts"),
        (collectives(group=1), "collectives: a group or an op has no name"),
        (collectives(op=-1), "collectives: a group or an op has no name"),
        (collectives(moments=2), "collectives: its arrays are not of one length"),
        (collectives(durations=2), "collectives: its times do not fit its entries"),
        (timeline(phase=1), "timeline: a phase has no name"),
        (timeline(owners=2), "timeline: its arrays are not of one length"),
        (Pauses(6, "training", (), np.zeros(1, "<i4"), *np.zeros((2, 1), "<i8")), "pauses: a pause has no name"),
        (Pauses(6, "training", ("a",), np.zeros(1, "<i4")), "pauses: its arrays are not of one length"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(record: Record, why: str) -> None:
    with pytest.raises(RecordError) as caught:
        validate(record)
    assert str(caught.value) == why


def test_a_tree_that_continues_another_is_sound() -> None:
    validate(tree((3, 2), (10, 3), (-1, 0), first_row=10))


def test_other_records_have_nothing_to_contradict() -> None:
    validate(End("exit", 3))
