"""A trace for ui.perfetto.dev, written with Perfetto's own package, packet by packet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Protocol

from distprof.errors import UsageError
from distprof.merge.trace.model import Counter, RankTrace, Slice, Track, Value

#: One writer of packets; all ids of a trace belong to one.
_SEQUENCE = 1


class Stream(Protocol):
    """What packets are written into."""

    def write(self, data: bytes, /) -> int: ...


class PerfettoTrace:
    """Writes packets into a stream.  Raises UsageError if the package ``perfetto`` is missing."""

    def __init__(self, stream: Stream) -> None:
        try:
            from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackDescriptor, TrackEvent
            from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder
        except ImportError:
            raise UsageError("the package perfetto is missing: pip install 'distprof[perfetto]'") from None
        self._builder = StreamingTraceProtoBuilder(stream)
        self._event: Any = TrackEvent
        self._in_given_order = TrackDescriptor.EXPLICIT
        self._uuids = count(1)
        self.slices = 0  # written so far

    def add_rank(self, trace: RankTrace) -> None:
        """Writes one rank as a process, with its tracks in their order."""
        process = self._describe_process(trace)
        order = count()
        for track in trace.tracks:
            self._add_track(track, process, order)
        for counter in trace.counters:
            self._add_counter(counter, process, next(order))

    def add_annotation(self, name: str, slices: Iterable[Slice]) -> None:
        """Writes a track of its own above all ranks."""
        self._add_track(Track(name, tuple(slices)), None, iter(()))

    def _describe_process(self, trace: RankTrace) -> int:
        packet, uuid = self._packet(), next(self._uuids)
        descriptor = packet.track_descriptor
        descriptor.uuid = uuid
        descriptor.process.pid = trace.rank + 1  # 0 is the kernel's idle process
        descriptor.process.process_name = trace.name
        descriptor.process.legacy_sort_index = trace.rank
        descriptor.child_ordering = self._in_given_order
        self._builder.write_packet(packet)
        return uuid

    def _add_track(self, track: Track, parent: int | None, order: Iterator[int]) -> None:
        rank = next(order, 0)
        for lane in track.lanes:
            uuid = self._describe(track.name, parent, rank, {})
            for one in lane:
                self._add_slice(uuid, one)

    def _add_counter(self, counter: Counter, parent: int, rank: int) -> None:
        uuid = self._describe(counter.name, parent, rank, {"unit_name": counter.unit})
        for moment_ns, value in counter.points:
            packet = self._event_packet(moment_ns, uuid, self._event.TYPE_COUNTER)
            packet.track_event.counter_value = value
            self._builder.write_packet(packet)

    def _describe(self, name: str, parent: int | None, rank: int, counter: Mapping[str, str]) -> int:
        packet, uuid = self._packet(), next(self._uuids)
        descriptor = packet.track_descriptor
        descriptor.uuid, descriptor.name, descriptor.sibling_order_rank = uuid, name, rank
        if parent is not None:
            descriptor.parent_uuid = parent
        for field, value in counter.items():
            setattr(descriptor.counter, field, value)
        self._builder.write_packet(packet)
        return uuid

    def _add_slice(self, track: int, one: Slice) -> None:
        self.slices += 1
        kind = self._event.TYPE_SLICE_BEGIN if one.end_ns > one.start_ns else self._event.TYPE_INSTANT
        packet = self._event_packet(one.start_ns, track, kind)
        event = packet.track_event
        event.name = one.name
        event.flow_ids.extend(one.flows)
        for name, value in one.args.items():
            _annotate(event.debug_annotations.add(), name, value)
        self._builder.write_packet(packet)
        if one.end_ns > one.start_ns:
            self._builder.write_packet(self._event_packet(one.end_ns, track, self._event.TYPE_SLICE_END))

    def _event_packet(self, moment_ns: int, track: int, kind: int) -> Any:
        packet = self._packet()
        packet.timestamp = moment_ns
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        return packet

    def _packet(self) -> Any:
        packet = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        return packet


def _annotate(annotation: Any, name: str, value: Value) -> None:
    annotation.name = name
    if isinstance(value, str):
        annotation.string_value = value
    elif isinstance(value, float):
        annotation.double_value = value
    else:
        annotation.int_value = value
