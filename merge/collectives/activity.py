"""What the training threads of all ranks did in the timed steps: what they enqueued, and the gaps between."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray, IntArray, combination
from distprof.merge.clock.offsets import JobClock
from distprof.merge.collectives.gaps import Gaps, training_gaps
from distprof.merge.collectives.join import JoinedEntries
from distprof.merge.collectives.pending import Pending, all_pending
from distprof.plain import dataclass


@dataclass(frozen=True, eq=False)
class Activity:
    """The joined entries and the gaps of all ranks, and which gaps are the same gap of ranks that do the same work."""

    entries: JoinedEntries
    gaps: Gaps
    identity: IntArray  # by gap: a number from 0, equal for the same gap of ranks of one cohort, in all steps
    cohort: IntArray  # by rank of the entries: a number from 0, equal for ranks that do the same work

    @cached_property
    def identities(self) -> int:
        """How many gaps differ, at least 1."""
        return int(self.identity.max(initial=0)) + 1

    @cached_property
    def shortest_ns(self) -> FloatArray:
        """By identity: the mean length of the gap on the rank of the cohort on which it is shortest.

        It is 0 where some rank of the cohort has no such gap: what is short is not recorded.
        """
        gaps = self.gaps
        on_rank = combination((self.identity, gaps.column))
        _, first = np.unique(on_rank, return_index=True)
        mean_ns = np.bincount(on_rank, gaps.end_ns - gaps.start_ns) / max(len(self.entries.iterations), 1)
        identity = self.identity[first]
        shortest = np.full(self.identities, np.inf)
        np.minimum.at(shortest, identity, mean_ns)
        ranks = np.zeros(self.identities, np.int64)
        ranks[identity] = np.bincount(self.cohort)[self.cohort[gaps.column[first]]]
        shortest[np.bincount(identity, minlength=self.identities) < ranks] = 0
        return shortest

    def pending(self) -> Pending:
        """Returns the collectives with the gaps that began while they were pending."""
        return all_pending(self.entries, self.gaps)


def training_activity(analysis: Analysis, entries: JoinedEntries, clock: JobClock) -> Activity:
    """Returns the entries with the gaps of their ranks, on the clock of the entries."""
    gaps = training_gaps(analysis, entries, clock)
    cohort = np.array([analysis.cohorts[rank] for rank in entries.ranks], np.int64)
    identity = combination((cohort[gaps.column], gaps.owner, gaps.turn, gaps.part))
    return Activity(entries, gaps, identity, cohort)
