"""Traces of torch.profiler as tracks of their rank, on the clock of the other tracks."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from distprof.errors import said
from distprof.merge.clock.offsets import RankClock
from distprof.merge.trace.model import RankTrace, Slice, Track
from distprof.run_folder import CLOCK_RANGE, TRACE_ABOUT
from distprof.safe_files import read_regular

_MOST_BYTES, _MOST_JSON_BYTES = 1 << 26, 1 << 29
_LONGEST_NAME = 200
_NS_PER_US = 1000
#: The latest moment of a clock that is drawn, in us.
_LATEST_US = float(1 << 53)
_ON_GPU = frozenset({"kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation"})
#: Made by the profiler about itself.
_ABOUT_ITSELF = "Trace"


def with_torch_traces(trace: RankTrace, paths: Iterable[Path], clock: RankClock) -> RankTrace:
    """Returns the timeline of a rank with the traces of torch.profiler that it wrote.

    What cannot be read is left out, with the reason.
    """
    slices: dict[str, list[Slice]] = {}
    left_out = []
    for path in paths:
        try:
            events, shift_ns = _read(path)
            for title, one in _slices(events, shift_ns, clock):
                slices.setdefault(title, []).append(one)
        except (OSError, EOFError, ValueError, TypeError, RecursionError, zlib.error) as error:
            left_out.append(f"{path} is left out: {said(error) or type(error).__name__}")
    tracks = (Track(title, tuple(own), nests=True) for title, own in slices.items())
    return replace(trace, tracks=(*trace.tracks, *tracks), left_out=(*trace.left_out, *left_out))


def _read(path: Path) -> tuple[list[Any], int]:
    """Returns the events of a trace, and what has to be added to their times to be on the rank's monotonic clock (ns).

    Raises OSError, EOFError, zlib.error, ValueError, TypeError or RecursionError for what is no such trace.
    """
    with gzip.GzipFile(fileobj=BytesIO(read_regular(path, _MOST_BYTES))) as file:
        text = file.read(_MOST_JSON_BYTES + 1)
    if len(text) > _MOST_JSON_BYTES:
        raise ValueError(f"it has more than {_MOST_JSON_BYTES:,} bytes, unpacked")
    content = json.loads(text)
    try:
        clock, events = content[TRACE_ABOUT]["clock"], content["traceEvents"]
        named, mono_ns = clock["range"], clock["mono_ns"]
    except (KeyError, TypeError):
        raise ValueError("it does not say when distprof read the clock") from None
    if not isinstance(events, list) or type(mono_ns) is not int:
        raise TypeError("it is no trace that distprof made")
    began = [one["ts"] for one in events if _is_complete(one) and one["name"] == named]
    if not began:
        raise ValueError("the range at which the clock was read is not in it")
    return events, mono_ns - round(min(began) * _NS_PER_US)


def _is_complete(event: Any) -> bool:
    return (
        isinstance(event, dict)
        and event.get("ph") == "X"
        and isinstance(event.get("name"), str)
        and all(_is_time(event.get(field)) for field in ("ts", "dur"))
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST_US


def _slices(events: Iterable[Any], shift_ns: int, clock: RankClock) -> Iterator[tuple[str, Slice]]:
    """Yields (name of the track, slice)."""
    threads: dict[tuple[str, str], int] = {}
    for event in events:
        if _is_complete(event) and event.get("cat") != _ABOUT_ITSELF and not event["name"].startswith(CLOCK_RANGE):
            start_ns = round(event["ts"] * _NS_PER_US) + shift_ns
            end_ns = start_ns + round(event["dur"] * _NS_PER_US)
            yield (
                _track(event, threads),
                Slice(event["name"][:_LONGEST_NAME], clock.moment(start_ns), clock.moment(end_ns)),
            )


def _track(event: Mapping[str, Any], threads: dict[tuple[str, str], int]) -> str:
    place = str(event.get("pid"))[:_LONGEST_NAME], str(event.get("tid"))[:_LONGEST_NAME]
    if event.get("cat") in _ON_GPU:
        return f"torch.profiler: GPU {place[0]}, stream {place[1]}"
    return f"torch.profiler: thread {threads.setdefault(place, len(threads) + 1)}"
