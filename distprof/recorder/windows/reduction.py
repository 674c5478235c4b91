"""Which records of a shard stay when old windows are reduced to their summaries."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from distprof.rank.plans import used_steps
from distprof.records import ClockOffset, Counts, End, Plan, Record, Step, WindowSummary
from distprof.shard.codec import to_payload

_CLOCK_OFFSETS = 64


def reduced(records: Sequence[Record], keep: int) -> list[Record]:
    """Returns the records in order, with those of the last ``keep`` windows; of each earlier window its summary.

    Records that belong to no window stay, each once: some are written again in each window, and the last one is valid.
    Of the comparisons of clocks the last ones stay.
    """
    plans = {record.window: record for record in records if isinstance(record, Plan)}
    removed = set(list(plans)[:-keep])
    clocks = {id(record) for record in [one for one in records if isinstance(one, ClockOffset)][:-_CLOCK_OFFSETS]}
    identities = [_identity(record) for record in records]
    last = {identity: place for place, identity in enumerate(identities)}
    kept: list[Record] = []
    for place, record in enumerate(records):
        if isinstance(record, Plan) and record.window in removed:
            kept += summaries(record, records) if record is plans[record.window] else ()
        elif isinstance(record, WindowSummary) or (
            _window(record) not in removed and last[identities[place]] == place and id(record) not in clocks
        ):
            kept.append(record)
    return kept


def windows_in(records: Sequence[Record]) -> int:
    """Returns how many windows have all their records."""
    return len({record.window for record in records if isinstance(record, Plan)})


def summaries(plan: Plan, records: Sequence[Record]) -> list[WindowSummary]:
    """Returns the summary of a window in each mode in which iterations were timed."""
    steps = [record for record in records if isinstance(record, Step) and record.window == plan.window]
    counts = [record for record in records if isinstance(record, Counts) and record.window == plan.window]
    used = used_steps(steps, [plan])
    return [
        _summary(plan.window, [step for step in used if step.mode == mode], [one for one in counts if one.mode == mode])
        for mode in dict.fromkeys(step.mode for step in used)
    ]


def _summary(window: int, steps: Sequence[Step], counts: Sequence[Counts]) -> WindowSummary:
    phases: dict[str, int] = {}
    for step in steps:
        for phase, taken in step.phases_ns.items():
            phases[phase] = phases.get(phase, 0) + taken
    return WindowSummary(
        window=window,
        mode=steps[0].mode,
        start=steps[0].iteration,
        iterations=len(steps),
        duration_ns=sum(step.duration_ns for step in steps),
        longest_ns=max(step.duration_ns for step in steps),
        phases_ns=phases,
        samples=sum(step.samples for step in steps) if all(step.batch_size for step in steps) else 0,
        tokens=sum(step.tokens for step in steps) if all(step.tokens for step in steps) else 0,
        peak_memory_bytes=max(step.peak_memory_bytes for step in steps),
        macs=sum(row.model_macs for row in counts[-1].device_work) if counts else 0,
        median_ns=_middle([step.duration_ns for step in steps]),
    )


def _middle(values: Sequence[int]) -> int:
    """Returns the median; numpy's own function would import numpy.ma in the middle of the job."""
    ordered, half = sorted(values), len(values) // 2
    return (ordered[half] + ordered[-half - 1]) // 2


def _window(record: Record) -> int | None:
    """Returns the window of a record, None where it belongs to none; a summary belongs to its own."""
    return getattr(record, "window", None)


def _identity(record: Record) -> object:
    """Returns what is equal for records of which only the last is needed."""
    if isinstance(record, End):
        return End
    if _window(record) is not None:
        return id(record)
    return record.KIND, msgpack.packb(to_payload(record), unicode_errors="backslashreplace")
