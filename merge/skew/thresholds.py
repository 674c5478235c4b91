"""Every threshold of the rule that names slow ranks, and why it has this value.

The values were chosen on 497 jobs with planted faults and without, on six architectures and 4 or 8 ranks, and checked
on 315 others: no healthy run of a cohort of three or more was given a straggler, and no innocent rank was named.
"""

from __future__ import annotations

#: A rank is slow from this share of the iteration on: below it, ranks differ by chance, and it costs little.
SLOW_SHARE = 0.05
#: The share of its steps in which a slow rank is slow.  With 60 %, 12 of 229 healthy runs named somebody.
PERSISTENT = 0.8
#: In a step a rank is slow if its excess is at least this share of its median excess.
STEP_SHARE = 0.5
#: The excess of slow ranks is so many times that of the next rank, or there is no line to draw between them.
MARGIN = 2.0
#: A slow rank is above each rank that is not slow in most steps, but for this share of those: of hundreds some rank has
#: pauses in many steps.  It need not be above all of them at once: on a busy machine one of eight is often held up.
MOST_ABOVE = 0.05
#: At most this share of a cohort can be slow: where more are, which half is the normal one is not known.
MOST_OF_COHORT = 1 / 3
#: An excess is real if it is so many standard errors of a median of the steps, by the spread of the other ranks.
STANDARD_ERRORS = 4.0
#: A module, or else a phase, is named as the place of an excess if it has this share of the rank's largest one.  Sums
#: of many modules are noisy: a module needs this share only of what lies so many standard errors below the largest one.
PLACE_SHARE = 0.6
AT_LEAST = 2.0
#: A phase as a whole is the place of an excess only if it loses so many times the share that the whole iteration loses:
#: a slow machine loses most in the longest phase.
PHASE_FACTOR = 1.25
#: A median is compared with at least two others; of two ranks only one may be the odd one, so more is asked of it.
MIN_COHORT = 3
PAIR_SHARE = 0.1
PAIR_PERSISTENT = 0.9
#: The slow rank may be among those that recorded nothing.
MIN_COVERAGE = 0.8
#: With fewer timed steps no rank is slow in most of them by anything but chance.
MIN_STEPS = 3
#: Where waits are not known, a rank of the same group with this share of the excess in another place may be the cause.
WAITER_SHARE = 0.5
#: An iteration would hardly be shorter without ranks that cost less than this share of it.
HARDLY_A_COST = 0.01
#: The transfers of a group on a slow link take so many times those of its siblings.
LINK_FACTOR = 2.0
#: A rank has more work from this ratio of its samples to those of its cohort on.
MORE_WORK_RATIO = 1.1
#: A rank has too many tokens from this ratio of those of its experts to the mean on.
MORE_TOKENS = 1.25
#: A pipeline stage is long from this ratio of its own time to the mean of the stages on.
LONG_STAGE_RATIO = 1.25
#: One step of a rank holds a pause if its excess is this share of an iteration, and at least so many ns.  Smaller ones
#: are what a busy machine does to any rank.
PAUSE_SHARE = 0.15
PAUSE_NS = 50_000_000.0
#: A pause is so many times what any other rank lost in a step.  Of 143 healthy runs none has one; times of their ranks
#: that were shuffled within their steps have one in 0.2 % of the cases.
PAUSE_MARGIN = 3.0
#: Pauses are of one kind if the shortest has this share of the longest.
PAUSE_AGAIN = 0.75
