"""The layout of a page: a header, then one slot for each rank of the node (docs/HEARTBEAT.md)."""

from __future__ import annotations

import struct

from distprof.heartbeat.blocks import layout

VERSION = 1
MAGIC = b"distprof"
#: magic, version, number of slots, bytes of a slot.
HEADER = struct.Struct("<8sIII")
HEADER_BYTES = 4096
SLOT_BYTES = 8192
#: More ranks than any node runs; the ranks above it have no heartbeat.
SLOTS = 256
PAGE_BYTES = HEADER_BYTES + SLOTS * SLOT_BYTES

#: The number of the last request, written after the request: the only thing that a rank reads in each iteration.
NEWEST_REQUEST = 0
#: The sum of the durations that the histogram counts, ns.
TOTAL = 8
#: Counts of iterations by their duration: 32 bits each.
HISTOGRAM, HISTOGRAM_END = 64, 64 + 4 * 128

HOST_BYTES, PLACE_BYTES, DEVICE_BYTES, UUID_BYTES = 64, 96, 16, 48
MODULE_BYTES, PHASE_BYTES, GROUP_BYTES, OP_BYTES = 192, 16, 32, 24
#: The phases of an iteration, as in :mod:`distprof.records`, which needs numpy: the daemon does without.
PHASES = ("data", "forward", "outside", "backward", "optimizer", "evaluation", "other")
#: Groups whose collectives are shown: those that were made first.
MOST_GROUPS = 8
WHERE_BYTES, MESSAGE_BYTES, REASON_BYTES = 48, 200, 160
#: Kinds of work that have peaks of their own: those with most MACs.
MOST_WORKS, NAME_BYTES, ARITHMETIC_BYTES = 4, 64, 16

#: rank, world size, local rank, node rank, pid, start of the process in ticks, wall and monotonic time at the start of
#: the recording, host, place, device, UUID of the GPU.
IDENTITY = layout(HISTOGRAM_END, f"8Q{HOST_BYTES}s{PLACE_BYTES}s{DEVICE_BYTES}s{UUID_BYTES}s")
#: iteration, its begin on the monotonic clock, duration of the one before (0: none), smoothed duration, state, window,
#: the first iteration after that window.
PROGRESS = layout(IDENTITY.end, "7Q")
#: when it was sampled (monotonic clock), phase, running module.
ACTIVITY = layout(PROGRESS.end, f"Q{PHASE_BYTES}s{MODULE_BYTES}s")
#: when it was looked at (monotonic clock), and for each group: name, number of members, a number made of its members,
#: last enqueued and last completed collective.
GROUPS = layout(ACTIVITY.end, "Q" + f"{GROUP_BYTES}sIQqq" * MOST_GROUPS)
#: of the last timed iteration: iteration, duration, each of PHASES, samples, tokens, peak memory, tokens of this rank's
#: experts, load of the hottest expert over the mean of all; -1: not measured.
COUNTERS = layout(GROUPS.end, f"2q{len(PHASES)}q4qd")
#: when (monotonic clock), where, what.
ERROR = layout(COUNTERS.end, f"Q{WHERE_BYTES}s{MESSAGE_BYTES}s")
#: number, start, counted and timed iterations, window, traced iterations.  The daemon writes it, and the rank all other
#: blocks.
REQUEST = layout(ERROR.end, "6Q")
#: number of the request, 1 if accepted, window, the iteration that was running, reason of a refusal.
ANSWER = layout(REQUEST.end, f"4Q{REASON_BYTES}s")

#: of the last window with a counted iteration: window, mean duration of its timed iterations, devices, and for each
#: kind of work: name of the device, its threads, arithmetic, MACs of the model in one iteration.
WORK = layout(ANSWER.end, "2qI" + f"{NAME_BYTES}sI{ARITHMETIC_BYTES}sq" * MOST_WORKS)
#: of the collective that runs, or ran last: when it was looked at (monotonic clock), name of its group, number of
#: members, a number made of the members, its number, the last one of the group that is completed, its op (empty: not
#: known).
COLLECTIVE = layout(WORK.end, f"Q{GROUP_BYTES}sIQqq{OP_BYTES}s")

assert COLLECTIVE.end <= SLOT_BYTES


def slot_offset(index: int) -> int:
    """Returns the offset of a slot in the page."""
    return HEADER_BYTES + index * SLOT_BYTES
