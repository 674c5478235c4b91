"""The collective that this process is in, or was in last: what a watcher shows of it in the page."""

from __future__ import annotations

from distprof.heartbeat.slot import LastCollective
from distprof.probes.collectives.called_ops import CalledOp, KnownOps
from distprof.probes.collectives.group_status import GroupStatus, group_status
from distprof.topology.process_groups import groups


class CollectiveFinder:
    """Looks now and then.  One that runs comes before those that are completed; of several, that of the group that has
    moved last, as far as looks and calls tell.
    """

    def __init__(self) -> None:
        self._looks = 0
        self._moved: dict[str, tuple[int, int]] = {}  # of a group: its last collective, and the look that saw it first

    def look(self, known: KnownOps) -> LastCollective | None:
        """Returns the collective; None before the first one, and where torch does not tell how far the groups are."""
        self._looks += 1
        seen, best = groups(), None
        for group, progress in zip(seen, group_status(seen), strict=True):
            if progress.enqueued > 0:
                found = self._candidate(group.name, progress, known.of(group.name, progress.enqueued))
                best = found if best is None or found[0] > best[0] else best
        return None if best is None else best[1]

    def _candidate(
        self, name: str, progress: GroupStatus, known: CalledOp | None
    ) -> tuple[tuple[bool, int, int], LastCollective]:
        """Returns how much the last collective of a group is to be preferred, and the collective."""
        number = progress.enqueued if known is None else known.number  # a call may be newer than the status
        if self._moved.get(name, (0, 0))[0] != number:
            self._moved[name] = number, self._looks
        preference = progress.completed < number, self._moved[name][1], 0 if known is None else known.turn
        op = "" if known is None else known.op
        return preference, LastCollective(
            progress.name, progress.size, progress.members, number, progress.completed, op
        )
