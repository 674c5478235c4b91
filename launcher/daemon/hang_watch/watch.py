"""The hang watch of a daemon: it suspects, looks, judges, says what it found once, and is armed again when things move.

The daemon of the node with the lowest rank judges, from the evidence of all nodes; the others hand theirs over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from distprof.heartbeat.hang_file import FOLDER, SLOW, UNKNOWN, Hang, next_number, write_hang
from distprof.heartbeat.look import PERMIT, ask
from distprof.heartbeat.slot import RankInfo, State
from distprof.launcher.daemon.hang_watch.collection import Collection, Slots
from distprof.launcher.daemon.hang_watch.evidence import NodeEvidence, join
from distprof.launcher.daemon.hang_watch.limits import limit_s
from distprof.launcher.daemon.hang_watch.nccl_ras import RasQuery
from distprof.launcher.daemon.hang_watch.report import Stacks, line, moved_line, page
from distprof.launcher.daemon.hang_watch.verdict import judge
from distprof.run_folder import RunFolder

_NS = 1e9
#: Between two looks of the watch at the page.
_STEP_S = 1.0
#: Between the two looks of a collection: a part of the floor, within these bounds.
_PAUSE, _LEAST_PAUSE_S, _MOST_PAUSE_S = 0.1, 0.5, 5.0
#: For the evidence of other nodes to come.
_JOIN_S = 15.0
_RUNNING = (State.QUIET, State.COUNTED, State.TIMED)


@dataclass(frozen=True)
class Neighbour:
    """Another node of the job, as its daemon was heard last."""

    ranks: tuple[int, ...]
    evidence: NodeEvidence | None


class HangWatch:
    """Watches the ranks of one node."""

    def __init__(
        self, run: RunFolder, token: str, slots: Callable[[], Slots], floor_s: float, say: Callable[[str], None]
    ) -> None:
        """``slots`` returns the slots of this node with their ranks; ``say`` writes a line into the job's log."""
        self.evidence: NodeEvidence | None = None  # of this node, while it seems to stand still
        self.hang: Hang | None = None  # what was found, until things move
        self._run = run
        self._token = token
        self._slots = slots
        self._floor_s = floor_s
        self._say = say
        self._pause_s = min(_MOST_PAUSE_S, max(_LEAST_PAUSE_S, _PAUSE * floor_s))
        self._collection: Collection | None = None
        self._collections = 0
        self._stacks: Stacks = {}
        self._ras: RasQuery | None = None
        self._is_judged = True
        self._collected_s = 0.0
        self._next_step_s = self._next_look_s = 0.0
        self._number = -1  # of the hang in the run's folder
        self._permitted: set[int] = set()  # processes that let this one read their memory

    def step(self, neighbours: Sequence[Neighbour] = ()) -> None:
        """Goes on; called some times a second.  ``neighbours``: the other nodes of the job."""
        now_s = time.monotonic()
        if self._collection is not None:
            self._collect(self._collection, now_s)
        elif now_s >= self._next_step_s:
            self._next_step_s = now_s + _STEP_S
            self._watch(neighbours, now_s)

    def close(self) -> None:
        if self._collection is not None:
            self._collection.close()

    def _watch(self, neighbours: Sequence[Neighbour], now_s: float) -> None:
        slots = self._slots()
        self._ask_for_permission(slots)
        if self.evidence is not None and self._has_moved(slots, self.evidence):
            self._arm_again()
        if self.evidence is not None and not self._is_judged:
            self._judge(self.evidence, neighbours, now_s)
        elif now_s >= self._next_look_s and self._is_suspicious(slots, neighbours):
            number = 1 + 2 * self._collections
            self._collections += 1
            self._collection = Collection(self._token, self._slots, self._floor_s, self._pause_s, number)
            self._ras = RasQuery()

    def _ask_for_permission(self, slots: Slots) -> None:
        """Lets ranks permit py-spy, which this process starts: some systems let a process read only its children's."""
        for index, info in slots:
            if info.pid not in self._permitted and ask(self._token, index, PERMIT, os.getpid()):
                self._permitted.add(info.pid)

    def _is_suspicious(self, slots: Slots, neighbours: Sequence[Neighbour]) -> bool:
        if self.hang is not None and self.hang.kind not in (SLOW, UNKNOWN):
            return False
        now_ns = time.perf_counter_ns()
        return any(one.evidence is not None for one in neighbours) or any(
            info.state in _RUNNING and self._is_stuck(info, (now_ns - info.began_ns) / _NS) for _, info in slots
        )

    def _is_stuck(self, info: RankInfo, age_s: float) -> bool:
        """Whether the iteration has taken too long; no limit is below the floor, so mostly none is computed."""
        return age_s > self._floor_s and age_s > limit_s(info.iteration, info.usual_p99_ns, self._floor_s)

    def _collect(self, collection: Collection, now_s: float) -> None:
        evidence = collection.step()
        if evidence is not None:
            self.evidence, self._stacks, self._collection = evidence, collection.stacks, None
            self._collected_s, self._is_judged = now_s, False
            self._next_look_s = now_s + self._floor_s * (2 if self.hang is not None else 1)

    def _judge(self, own: NodeEvidence, neighbours: Sequence[Neighbour], now_s: float) -> None:
        """Judges with the evidence of all nodes, or of those that have come in time."""
        if not own.ranks or any(min(one.ranks) < own.ranks[0].rank for one in neighbours if one.ranks):
            self._is_judged = True  # by another node
            return
        silent = [one for one in neighbours if one.evidence is None and one.ranks]
        if silent and now_s < self._collected_s + _JOIN_S:
            return
        self._is_judged = True
        evidence = join([own, *(one.evidence for one in neighbours if one.evidence is not None)])
        hang = judge(evidence, self._ras.sentences() if self._ras is not None else ())
        if hang is not None and (self.hang is None or hang.kind != self.hang.kind):
            self._tell(hang, evidence)

    def _tell(self, hang: Hang, evidence: NodeEvidence) -> None:
        self.hang, file = hang, ""
        with suppress(OSError):
            self._number = next_number(self._run)
            if self._number >= 0:
                write_hang(self._run, self._number, hang, page(hang, evidence, self._stacks))
                file = str(self._run.path / FOLDER / f"{self._number:03}.txt")
        self._say(line(hang, file))

    def _arm_again(self) -> None:
        hang, self.hang, self.evidence, self._is_judged = self.hang, None, None, True
        if hang is None:
            return
        self._say(moved_line(hang))
        with suppress(OSError):
            if self._number >= 0:
                write_hang(self._run, self._number, replace(hang, moved_wall_ns=time.time_ns()))

    def _has_moved(self, slots: Slots, evidence: NodeEvidence) -> bool:
        before = {rank.rank: rank for rank in evidence.ranks}
        return any(
            info.rank in before and info.iteration > before[info.rank].iteration and info.pid == before[info.rank].pid
            for _, info in slots
        )
