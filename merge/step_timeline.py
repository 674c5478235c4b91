"""One iteration of some ranks on one clock, to be drawn: phases, long turns of modules, collectives and waits.

recorded steps -> the iteration nearest to the median -> the named ranks and others at equal distances -> their spans
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import IntArray
from distprof.merge.collectives.channels import Channel
from distprof.merge.collectives.job_clock import clock_of, clock_section
from distprof.merge.collectives.join import JoinedEntries, recorded
from distprof.merge.collectives.kinds import group_kind
from distprof.merge.collectives.moments import on_job_clock
from distprof.merge.collectives.waits import Waits, collective_waits
from distprof.merge.load.collectives import RankCollectives
from distprof.merge.report import RankTimeline, Span, StepTimeline
from distprof.merge.skew.verdict import rank_verdict
from distprof.merge.stats import middle
from distprof.merge.times.summary import profile_summary
from distprof.records import NO_ROW

#: Of more ranks, the named ones and others at equal distances are shown.
MOST_RANKS = 32
OUTSIDE = "(outside modules)"
BACKWARD = " (backward)"


def step_timeline(analysis: Analysis) -> StepTimeline:
    """Returns the timeline of one iteration; an empty one where none was recorded."""
    found, iteration = _typical_iteration(analysis)
    if not found:
        return StepTimeline()
    ranks = shown_ranks(list(found), [one.rank for one in rank_verdict(analysis).named])
    starts = [_moments(analysis, rank, found[rank].start_ns)[_step(found[rank], iteration)] for rank in found]
    origin = int(min(starts))
    drawn = _Drawn(analysis, iteration, origin)
    return StepTimeline(
        iteration=iteration,
        ranks=tuple(drawn.rank(rank, found[rank]) for rank in ranks),
        left_out=len(found) - len(ranks),
        bound_ns=clock_section(analysis).error_ns,
    )


def shown_ranks(ranks: Sequence[int], named: Sequence[int]) -> list[int]:
    """Returns the ranks to show, ascending: all, or of many the named ones and others at equal distances."""
    if len(ranks) <= MOST_RANKS:
        return sorted(ranks)
    chosen = [rank for rank in named if rank in set(ranks)][: MOST_RANKS // 2]
    rest = [rank for rank in ranks if rank not in set(chosen)]
    places = np.linspace(0, len(rest) - 1, MOST_RANKS - len(chosen)).astype(int).tolist()
    return sorted([*chosen, *(rest[place] for place in places)])


def _typical_iteration(analysis: Analysis) -> tuple[Mapping[int, RankCollectives], int]:
    """Returns what ranks recorded of the iteration that is nearest to the median length, and its number."""
    times, found = profile_summary(analysis).iterations, recorded(analysis)
    lengths: dict[int, list[float]] = {}
    for own in found.values():
        for iteration, start, end in zip(own.iterations, own.start_ns.tolist(), own.end_ns.tolist(), strict=True):
            if start and end:
                lengths.setdefault(iteration, []).append(float(end - start))
    common = {iteration: float(middle(own)) for iteration, own in lengths.items() if len(own) == len(found)}
    if times is None or not common:
        return {}, 0
    return found, min(common, key=lambda iteration: (abs(common[iteration] - times.median_ns), iteration))


def _step(own: RankCollectives, iteration: int) -> int:
    return own.iterations.index(iteration)


def _moments(analysis: Analysis, rank: int, moments_ns: IntArray) -> IntArray:
    return on_job_clock(clock_of(analysis).of(rank), moments_ns)


class _Drawn:
    """Makes the spans of one iteration."""

    def __init__(self, analysis: Analysis, iteration: int, origin_ns: int) -> None:
        self._analysis, self._iteration, self._origin = analysis, iteration, origin_ns
        self._columns = {data.rank: number for number, data in enumerate(analysis.ranks)}
        self._waits = collective_waits(analysis)
        self._titles: dict[tuple[int, int], str] = {}  # by channel and op

    def rank(self, rank: int, own: RankCollectives) -> RankTimeline:
        """Returns the timeline of one rank."""
        step = _step(own, self._iteration)
        return RankTimeline(
            rank=rank,
            phases=tuple(self._phases(rank, own, step)),
            modules=tuple(self._turns(rank, own, step)),
            collectives=tuple(self._collectives(rank)),
            waits=tuple(self._waits_of(rank)),
            pauses=tuple(self._pauses(rank, own)),
        )

    def _phases(self, rank: int, own: RankCollectives, step: int) -> Iterator[Span]:
        kept = own.phases.step == step
        moments = np.append(own.phases.start_ns[kept], own.end_ns[step])
        placed = (_moments(self._analysis, rank, moments) - self._origin).tolist()
        for index, phase in enumerate(own.phases.phase[kept].tolist()):
            if placed[index + 1] > placed[index]:
                yield Span(own.phase_names[phase], placed[index], placed[index + 1])

    def _turns(self, rank: int, own: RankCollectives, step: int) -> Iterator[Span]:
        kept, rows = own.turns.step == step, self._analysis.union.index(self._columns[rank])
        starts, ends = (
            (_moments(self._analysis, rank, moments[kept]) - self._origin).tolist()
            for moments in (own.turns.start_ns, own.turns.end_ns)
        )
        for owner, start, end in zip(own.turns.owner[kept].tolist(), starts, ends, strict=True):
            yield Span(self._module(owner, rows), start, end)

    def _module(self, owner: int, rows: IntArray) -> str:
        row = ~owner if owner < 0 else owner
        if owner == NO_ROW or row >= len(rows):
            return OUTSIDE
        return f"{self._analysis.union.modules[int(rows[row])].label}{BACKWARD if owner < 0 else ''}"

    def _collectives(self, rank: int) -> Iterator[Span]:
        entries = self._entries
        if entries is None:
            return
        for entry in self._of_rank(entries.column, entries.step, rank):
            start = int(entries.enqueued_ns[entry]) - self._origin
            yield Span(self._title(entry), start, max(start, int(entries.last_ns[entry]) - self._origin))

    def _waits_of(self, rank: int) -> Iterator[Span]:
        waits = self._waits
        if waits is None:
            return
        for index in self._of_rank(waits.gaps.column[waits.gap], waits.gaps.step[waits.gap], rank):
            start = int(waits.gaps.start_ns[waits.gap[index]]) - self._origin
            name = f"waits for rank {self._last_member(waits, index)}: {self._title(int(waits.entry[index]))}"
            yield Span(name, start, start + int(waits.wait_ns[index]))

    def _pauses(self, rank: int, own: RankCollectives) -> Iterator[Span]:
        for pauses in own.pauses:
            if pauses.iteration == self._iteration:
                starts, ends = (
                    (_moments(self._analysis, rank, moments.astype(np.int64)) - self._origin).tolist()
                    for moments in (pauses.start_ns, pauses.end_ns)
                )
                for name, start, end in zip(pauses.name.tolist(), starts, ends, strict=True):
                    yield Span(pauses.names[name], start, end)

    @property
    def _entries(self) -> JoinedEntries | None:
        return self._waits.entries if self._waits is not None else None

    def _of_rank(self, column: npt.NDArray[np.int32], step: npt.NDArray[np.int32], rank: int) -> list[int]:
        """Returns the places in two arrays that are of a rank in this iteration."""
        entries = self._entries
        if entries is None or rank not in entries.ranks or self._iteration not in entries.iterations:
            return []
        own = (column == entries.ranks.index(rank)) & (step == entries.iterations.index(self._iteration))
        found: list[int] = np.flatnonzero(own).tolist()
        return found

    def _title(self, entry: int) -> str:
        assert self._entries is not None
        channel, op = int(self._entries.channel[entry]), int(self._entries.op[entry])
        if (channel, op) not in self._titles:
            self._titles[channel, op] = f"{self._entries.ops[op]} {self._where(self._entries.channels[channel])}"
        return self._titles[channel, op]

    def _where(self, channel: Channel) -> str:
        if channel.is_of_messages:
            return f"from rank {channel.source} to {channel.destination}"
        kind = group_kind(self._analysis.layout, channel.members, self._analysis.run.world_size, channel.group)
        return f"({kind})"

    def _last_member(self, waits: Waits, index: int) -> int:
        entries, entry = waits.entries, int(waits.entry[index])
        same = np.flatnonzero(entries.event == entries.event[entry])
        return entries.ranks[int(entries.column[same[int(entries.enqueued_ns[same].argmax())]])]
