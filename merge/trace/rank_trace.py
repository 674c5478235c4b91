"""The timeline of one rank, from the records of its shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distprof.merge.clock.offsets import RankClock
from distprof.merge.load.module_tree import RankTree
from distprof.merge.trace.meetings import Meeting, Meetings, collective_records
from distprof.merge.trace.model import Counter, RankTrace, Slice, Track, Value
from distprof.merge.wording import phase_title
from distprof.records import NO_ROW, Collectives, ExpertLoad, Pauses, Plan, Record, Step, Timeline


@dataclass(frozen=True)
class RankSource:
    """What the timeline of a rank is made from."""

    rank: int
    host: str
    place: Mapping[str, int]  # its coordinates on the axes that the job has
    plans: Mapping[int, Plan]  # by window
    tree: RankTree
    clock: RankClock
    records: Sequence[Record]


def rank_trace(source: RankSource, meetings: Meetings, group_titles: Mapping[str, str]) -> RankTrace:
    """Returns the timeline; ``group_titles`` names groups by torch's names for them."""
    records, clock = source.records, source.clock
    timelines = [record for record in records if isinstance(record, Timeline)]
    steps = [record for record in records if isinstance(record, Step)]
    began = {(one.window, one.mode, one.iteration): one for one in timelines}
    spans = [_span(step, began.get((step.window, step.mode, step.iteration)), clock) for step in steps]
    tracks = (
        Track("iterations", tuple(_iteration(step, span, source) for step, span in zip(steps, spans, strict=True))),
        Track("phases", tuple(one for timeline in timelines for one in _phases(timeline, clock))),
        Track("modules", tuple(one for timeline in timelines for one in _turns(timeline, source.tree, clock))),
        Track("collectives", tuple(_collectives(source, meetings, group_titles))),
        Track("pauses", tuple(_pauses(records, clock))),
    )
    ends = {(step.window, step.iteration): clock.moment(span[1]) for step, span in zip(steps, spans, strict=True)}
    drawn = tuple(track for track in tracks if track.slices)
    return RankTrace(source.rank, _title(source), drawn, _counters(records, steps, ends))


def _title(source: RankSource) -> str:
    """``rank 3 (node0, dp 1, tp 0)``: axes on which the job has one coordinate are left out."""
    return f"rank {source.rank} ({', '.join([source.host, *(f'{axis} {at}' for axis, at in source.place.items())])})"


def _span(step: Step, timeline: Timeline | None, clock: RankClock) -> tuple[int, int]:
    """Returns when a step began and ended, on the rank's monotonic clock."""
    if timeline is not None:
        return timeline.start_ns, timeline.end_ns
    start = clock.mono_of(step.start_wall_ns)
    return start, start + step.duration_ns


def _iteration(step: Step, span: tuple[int, int], source: RankSource) -> Slice:
    clock, plan = source.clock, source.plans.get(step.window)
    settles = plan is not None and plan.settling > 0 and step.iteration < plan.first_used
    args: dict[str, Value] = {
        "samples": step.samples,
        "micro-batches": step.micro_batches,
        **{f"{phase_title(phase)} (ms)": round(time_ns / 1e6, 3) for phase, time_ns in step.phases_ns.items()},
    }
    bound = clock.bound_ns(span[0])
    args["clock: largest error (us)"] = "unknown" if bound is None else round(bound / 1e3, 3)
    title = f"iteration {step.iteration}{' (after counting, not used)' if settles else ''}"
    return Slice(title, clock.moment(span[0]), clock.moment(span[1]), args)


def _phases(timeline: Timeline, clock: RankClock) -> Iterator[Slice]:
    starts = [*timeline.phase_start_ns.tolist(), timeline.end_ns]
    for index, phase in enumerate(timeline.phase.tolist()):
        if 0 <= phase < len(timeline.phase_names) and starts[index] < starts[index + 1]:
            start, end = clock.moment(starts[index]), clock.moment(starts[index + 1])
            yield Slice(phase_title(timeline.phase_names[phase]), start, end)


def _turns(timeline: Timeline, tree: RankTree, clock: RankClock) -> Iterator[Slice]:
    columns = timeline.turn_owner, timeline.turn_number, timeline.turn_start_ns, timeline.turn_end_ns
    for owner, number, start, end in zip(*(column.tolist() for column in columns), strict=False):
        name, class_name = _module(owner, tree)
        args: dict[str, Value] = {"turn": number, **({"class": class_name} if class_name else {})}
        yield Slice(name, clock.moment(start), clock.moment(end), args)


def _module(owner: int, tree: RankTree) -> tuple[str, str]:
    """Returns the name of a turn's owner, and the class of its module."""
    if owner == NO_ROW:
        return "(outside modules)", ""
    row, backward = (~owner, " (backward)") if owner < 0 else (owner, "")
    if row >= len(tree):
        return f"(unknown module){backward}", ""
    module = tree.rows[row]
    return f"{module.name or module.class_name}{backward}", module.class_name


def _collectives(source: RankSource, meetings: Meetings, group_titles: Mapping[str, str]) -> Iterator[Slice]:
    for record, own in zip(collective_records(source.records), meetings.of(source.rank), strict=True):
        for index, meeting in enumerate(own):
            yield _collective(record, index, meeting, source.clock, group_titles)


def _collective(
    record: Collectives, index: int, meeting: Meeting, clock: RankClock, group_titles: Mapping[str, str]
) -> Slice:
    start = end = clock.moment(int(record.enqueued_ns[index]))
    args = _amounts(record, index)
    waited = int(record.waited_until_ns[index]) if len(record.waited_until_ns) else 0
    if waited:
        end = clock.moment(waited)
    elif meeting.members > 1 and meeting.comparable:
        end = meeting.last_ns
        args["last to come"] = f"rank {meeting.last_rank}"
        args["ends"] = "when the last member came: completion was not seen"
    group = record.group_names[record.group[index]]
    name = f"{record.ops[record.op[index]]} ({group_titles.get(group, group)})"
    return Slice(name, start, max(start, end), args, (meeting.number,) if meeting.members > 1 else ())


def _amounts(record: Collectives, index: int) -> dict[str, Value]:
    args: dict[str, Value] = {"group": record.group_names[record.group[index]], "number": int(record.number[index])}
    for name, column in (("input (bytes)", record.input_bytes), ("output (bytes)", record.output_bytes)):
        if len(column):
            args[name] = int(column[index])
    if record.peer[index] >= 0:
        args["peer"] = int(record.peer[index])
    if len(record.duration_ns) and record.duration_ns[index] >= 0:
        args["on the device (ms)"] = round(int(record.duration_ns[index]) / 1e6, 3)
    return args


def _pauses(records: Sequence[Record], clock: RankClock) -> Iterator[Slice]:
    for record in records:
        if isinstance(record, Pauses):
            columns = record.name.tolist(), record.start_ns.tolist(), record.end_ns.tolist()
            for name, start, end in zip(*columns, strict=False):
                title = record.names[name] if 0 <= name < len(record.names) else "pause"
                yield Slice(title, clock.moment(start), clock.moment(end))


def _counters(
    records: Sequence[Record], steps: Sequence[Step], ends: Mapping[tuple[int, int], int]
) -> tuple[Counter, ...]:
    """Returns values of the steps, each from the step's end on."""
    memory = [(ends[step.window, step.iteration], step.peak_memory_bytes) for step in steps if step.peak_memory_bytes]
    samples = [(ends[step.window, step.iteration], step.samples) for step in steps if step.samples]
    tokens = [
        (ends[load.window, load.iteration], int(load.tokens.sum()))
        for load in records
        if isinstance(load, ExpertLoad) and (load.window, load.iteration) in ends
    ]
    source = steps[-1].memory_source if steps else ""
    found = (
        Counter(f"peak memory ({source})", "bytes", tuple(memory)),
        Counter("samples of an iteration", "samples", tuple(samples)),
        Counter("tokens of local experts", "tokens", tuple(tokens)),
    )
    return tuple(counter for counter in found if counter.points)
