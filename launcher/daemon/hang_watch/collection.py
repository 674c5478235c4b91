"""Looks twice at all ranks of a node: by the ranks themselves, else by py-spy from outside, else by /proc alone.

Nothing here waits: :meth:`Collection.step` is called again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from distprof.heartbeat.look import LOOK, ask, read_answer
from distprof.heartbeat.rank_look import Frame, RankLook, Stack, parse_look
from distprof.heartbeat.slot import RankInfo, State
from distprof.launcher.daemon.hang_watch import py_spy
from distprof.launcher.daemon.hang_watch.evidence import (
    DEAD,
    OF_PROC,
    OF_PY_SPY,
    OF_RANK,
    Members,
    NodeEvidence,
    RankEvidence,
    members_of,
)
from distprof.launcher.daemon.hang_watch.limits import limit_s
from distprof.launcher.daemon.hang_watch.places import phase, place, user_frames
from distprof.launcher.daemon.hang_watch.process_state import ProcessState, process_state
from distprof.rank import procfs

_NS = 1e9
#: Time for the ranks to answer, and for one dump of py-spy.
_ANSWER_S, _DUMP_S = 3.0, 20.0
_STOPPED = ("T", "t")
#: Calls of the user's code, the outermost ones, that show whether a rank goes on.
_OUTER = 2

Slots = Sequence[tuple[int, RankInfo]]


@dataclass(frozen=True)
class _Seen:
    """One rank at one look."""

    info: RankInfo
    process: ProcessState | None
    at_s: float
    answer: RankLook | None = None


class Collection:
    """Collects the evidence of one node."""

    def __init__(self, token: str, slots: Callable[[], Slots], floor_s: float, pause_s: float, number: int) -> None:
        """``pause_s``: time between the looks; ``number``: of the first one, which grows from collection to collection
        by two.
        """
        self._token = token
        self._slots = slots
        self._floor_s = floor_s
        self._pause_s = pause_s
        self._number = number
        self._looks: list[dict[int, _Seen]] = []
        self._began_s = 0.0
        self._dumps: dict[int, py_spy.Dump] = {}  # by slot
        self._to_dump: list[int] | None = None  # slots; None: the ranks may still answer
        self._dump_began_s = 0.0
        self.stacks: dict[int, tuple[str, tuple[Stack, ...]]] = {}  # rank -> (source, stacks)

    def step(self) -> NodeEvidence | None:
        """Goes on; returns the evidence when it is complete."""
        now_s = time.monotonic()
        if not self._looks or (
            len(self._looks) == 1 and self._answered(now_s) and now_s > self._began_s + self._pause_s
        ):
            self._look(now_s)
            return None
        if len(self._looks) == 1 or not self._answered(now_s) or not self._dumped(now_s):
            return None
        return self._evidence()

    def close(self) -> None:
        for dump in self._dumps.values():
            dump.end()
        self._dumps.clear()

    def _look(self, now_s: float) -> None:
        self._began_s = now_s
        number = self._number + len(self._looks)
        found = {
            index: _Seen(info, process_state(info.pid) if _is_alive(info) else None, now_s)
            for index, info in self._slots()
        }
        for index, seen in found.items():
            if seen.process is not None:
                ask(self._token, index, LOOK, number)
        self._looks.append(found)

    def _answered(self, now_s: float) -> bool:
        """Reads answers.  Returns whether all that can be expected have come."""
        look, number = self._looks[-1], self._number + len(self._looks) - 1
        missing = False
        for index, seen in look.items():
            if seen.answer is None and seen.process is not None and seen.process.state not in _STOPPED:
                answer = self._answer(index, number)
                look[index] = _Seen(seen.info, seen.process, seen.at_s, answer)
                missing = missing or answer is None
        return not missing or now_s > self._began_s + _ANSWER_S

    def _answer(self, index: int, number: int) -> RankLook | None:
        content = read_answer(self._token, index)
        with suppress(ValueError):
            look = parse_look(content) if content is not None else None
            return look if look is not None and look.number == number else None
        return None

    def _dumped(self, now_s: float) -> bool:
        """Runs py-spy on the ranks that have not answered, one after the other.  Returns whether that is done."""
        program = py_spy.executable()
        if self._to_dump is None:
            silent = [index for index, seen in self._looks[-1].items() if seen.process and seen.answer is None]
            self._to_dump = silent if program is not None else []
        for index, dump in list(self._dumps.items()):
            if dump.is_over or now_s > self._dump_began_s + _DUMP_S:
                found = dump.end()
                del self._dumps[index]
                if found:
                    self.stacks[self._looks[-1][index].info.rank] = OF_PY_SPY, found
        if not self._dumps and self._to_dump and program is not None:
            index, self._dump_began_s = self._to_dump.pop(0), now_s
            with suppress(OSError):
                self._dumps[index] = py_spy.Dump(program, self._looks[-1][index].info.pid)
        return not self._dumps and not self._to_dump

    def _evidence(self) -> NodeEvidence:
        first, second = self._looks
        groups: dict[str, Members] = {}
        ranks = []
        for index, seen in second.items():
            if seen.answer is not None:
                groups |= members_of(seen.answer.groups)
                self.stacks[seen.info.rank] = OF_RANK, seen.answer.stacks
            ranks.append(self._rank(first.get(index), seen))
        return NodeEvidence(tuple(sorted(ranks, key=lambda rank: rank.rank)), groups)

    def _rank(self, before: _Seen | None, seen: _Seen) -> RankEvidence:
        info, answer, process = seen.info, seen.answer, seen.process
        source, stacks = self.stacks.get(info.rank, (OF_PROC if process is not None else "", ()))
        frames = next((stack.frames for stack in stacks if stack.trains), ())
        where = phase(frames, evaluates=answer is not None and answer.evaluates)
        in_kernel = f"the system's {process.kernel_function}" if process is not None and process.kernel_function else ""
        waits = answer is None or answer.waits_in_futex is not False
        return RankEvidence(
            rank=info.rank,
            state=info.state.name.lower() if process is not None or info.state is State.ENDED else DEAD,
            pid=info.pid,
            iteration=info.iteration,
            age_s=(time.perf_counter_ns() - info.began_ns) / _NS,
            limit_s=limit_s(info.iteration, info.usual_p99_ns, self._floor_s, where),
            source=source,
            place=place(frames) or in_kernel,
            phase=where,
            process=process.state if process is not None else "",
            busy=_busy(before, seen),
            could_wait=waits and (process is None or process.state not in _STOPPED),
            moved=before is not None and _moved(before, seen),
            progress=_progress(answer) if answer is not None else None,
            ops=answer.ops if answer is not None else (),
        )


def _is_alive(info: RankInfo) -> bool:
    return procfs.started_tick(info.pid) == info.started_tick


def _busy(before: _Seen | None, seen: _Seen) -> float:
    """Returns the processor time between two looks for each second, at most 1."""
    if before is None or before.process is None or seen.process is None or seen.at_s <= before.at_s:
        return 0.0
    return min(1.0, (seen.process.cpu_s - before.process.cpu_s) / (seen.at_s - before.at_s))


def _progress(answer: RankLook) -> Mapping[str, tuple[int, int]]:
    """Returns how far each group is; where torch's status does not tell, by the last collectives."""
    found = {}
    for group in answer.groups:
        numbers = [op for op in answer.ops if op.group == group.key and op.number >= 0]
        enqueued, completed = group.enqueued, group.completed
        if enqueued < 0 and numbers:
            enqueued = max(op.number for op in numbers)
            completed = max((op.number for op in numbers if op.done), default=min(op.number for op in numbers) - 1)
        found[group.key] = enqueued, completed
    return found


def _moved(before: _Seen, seen: _Seen) -> bool:
    """Whether a rank has gone on: in its iterations, its collectives, or the outermost calls of the user's code."""
    if before.info.iteration != seen.info.iteration:
        return True
    if before.answer is None or seen.answer is None:
        return False
    if _progress(before.answer) != _progress(seen.answer):
        return True
    return _outer_calls(before.answer) != _outer_calls(seen.answer)


def _outer_calls(answer: RankLook) -> list[Frame]:
    frames = next((stack.frames for stack in answer.stacks if stack.trains), ())
    return user_frames(frames)[-_OUTER:]
