"""What the training threads of all ranks did in the timed steps: what they enqueued, and the gaps between."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import IntArray, combination
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

    @cached_property
    def identities(self) -> int:
        """How many gaps differ, at least 1."""
        return int(self.identity.max(initial=0)) + 1

    def pending(self) -> Pending:
        """Returns the collectives with the gaps that began while they were pending."""
        return all_pending(self.entries, self.gaps)


def training_activity(analysis: Analysis, entries: JoinedEntries, clock: JobClock) -> Activity:
    """Returns the entries with the gaps of their ranks, on the clock of the entries."""
    gaps = training_gaps(analysis, entries, clock)
    cohort = np.array([analysis.cohorts[rank] for rank in entries.ranks], np.int64)
    return Activity(entries, gaps, combination((cohort[gaps.column], gaps.owner, gaps.turn, gaps.part)))
