"""Jobs whose ranks wait for each other in collectives, simulated: what each rank did itself is known exactly.

A rank's iteration is a program: turns of modules, work within them, enqueues, and waits for enqueued collectives.  All
ranks run their programs on one clock; a wait ends when the last member has enqueued.  The records are those that
recorders write, so that merging them can be compared with what was planted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from support.synthetic import MS, RUN_ID, WALL_NS, shard_of

from distprof.merge.load.run import LoadedRun, run_of_shards
from distprof.records import (
    LONG_TURN_NS,
    NO_ROW,
    PHASES,
    Collectives,
    CollectiveWindow,
    End,
    ExpertLayer,
    ExpertLayers,
    ExpertLoad,
    Group,
    Header,
    ModuleRow,
    Parameter,
    Parameters,
    Plan,
    Record,
    Step,
    Timeline,
    Topology,
    Tree,
)

WARMUP = 4


@dataclass(frozen=True)
class Turn:
    """A turn of a module begins, in a phase."""

    owner: int
    phase: str


@dataclass(frozen=True)
class Work:
    ms: float


@dataclass(frozen=True)
class Enqueue:
    """``group`` is a name; with ``peer`` it is a send (``op`` send) or a receive."""

    group: str
    op: str = "all_reduce"
    peer: int = -1
    size: int = 4_000_000


@dataclass(frozen=True)
class Wait:
    """Waits for the ``back``-th last entry of the rank; a wait for a message is seen, as ``Work.wait`` is."""

    back: int = 1


Item = Turn | Work | Enqueue | Wait
#: (rank, step) -> the program of one iteration
Program = Callable[[int, int], Sequence[Item]]


@dataclass
class _Rank:
    number: int
    now: int
    items: list[Item]
    at: int = 0
    turns: list[tuple[int, str, int]] = field(default_factory=list)  # owner, phase, start
    entries: list[tuple[Enqueue, int, int]] = field(default_factory=list)  # what, number, when
    keys: list[tuple[object, ...]] = field(default_factory=list)
    waited: dict[int, tuple[int, int]] = field(default_factory=dict)  # by entry, of messages: from, until


@dataclass(frozen=True)
class SimulatedJob:
    """``groups``: by name the members.  ``rows`` are the names of modules, the first is the root: a row is inside
    one that its name begins with.
    """

    program: Program
    world: int
    groups: Mapping[str, tuple[int, ...]]
    rows: tuple[str, ...] = ("", "layers.0", "layers.1", "layers.2")
    sizes: dict[str, int] = field(default_factory=dict)
    coordinates: Callable[[int], dict[str, int]] = lambda rank: {"dp": rank}
    steps: int = 10
    hosts: Callable[[int], str] = lambda rank: "node0"
    drop: Callable[[int, Record], bool] = lambda rank, record: False  # records that are not written
    samples: Callable[[int], int] = lambda rank: 8
    layers: Callable[[int], tuple[ExpertLayer, ...]] = lambda rank: ()
    parameters: tuple[Parameter, ...] = ()
    tokens: Callable[[int, int], Sequence[int]] = lambda rank, step: ()  # of all local experts

    def run(self) -> LoadedRun:
        records: list[list[Record]] = [self._opening(rank) for rank in range(self.world)]
        numbers: dict[tuple[object, ...], int] = {}
        starts = [1_000 * MS] * self.world
        for step in range(self.steps):
            ranks = [_Rank(rank, starts[rank], list(self.program(rank, step))) for rank in range(self.world)]
            self._simulate(ranks, numbers)
            for rank in ranks:
                records[rank.number] += self._step(rank, WARMUP + 1 + step, starts[rank.number])
                if self.layers(rank.number):
                    loads = np.array(self.tokens(rank.number, step), np.int64)
                    records[rank.number].append(ExpertLoad(WARMUP + 1 + step, loads))
                starts[rank.number] = rank.now
        for number, own in enumerate(records):
            own.append(End("window complete", WARMUP + 1 + self.steps))
            records[number] = [record for record in own if not self.drop(number, record)]
        return run_of_shards([shard_of(own) for own in records])

    def _simulate(self, ranks: list[_Rank], numbers: dict[tuple[object, ...], int]) -> None:
        arrivals: dict[tuple[object, ...], dict[int, int]] = {}
        moved = True
        while moved:
            moved = False
            for rank in ranks:
                while rank.at < len(rank.items) and self._do(rank, arrivals, numbers):
                    rank.at += 1
                    moved = True
        assert all(rank.at == len(rank.items) for rank in ranks), "the simulated job hangs"

    def _do(
        self, rank: _Rank, arrivals: dict[tuple[object, ...], dict[int, int]], numbers: dict[tuple[object, ...], int]
    ) -> bool:
        """Returns whether the rank could do its next item."""
        item = rank.items[rank.at]
        if isinstance(item, Turn):
            rank.turns.append((item.owner, item.phase, rank.now))
        elif isinstance(item, Work):
            rank.now += round(item.ms * MS)
        elif isinstance(item, Enqueue):
            self._enqueue(rank, item, arrivals, numbers)
        else:
            key = rank.keys[-item.back]
            needed = set(key[2:4]) if key[1] == "message" else set(self.groups[str(key[0])])
            if set(arrivals[key]) != needed:
                return False
            began = rank.now
            if rank.entries[-item.back][0].op != "send":
                rank.now = max(rank.now, *arrivals[key].values())
            if key[1] == "message":
                rank.waited[len(rank.entries) - item.back] = began, rank.now
        return True

    def _enqueue(
        self, rank: _Rank, item: Enqueue, arrivals: dict[tuple[object, ...], dict[int, int]],
        numbers: dict[tuple[object, ...], int],
    ) -> None:  # fmt: skip
        ends = (rank.number, item.peer) if item.op == "send" else (item.peer, rank.number)
        channel = (item.group, "message", *ends) if item.peer >= 0 else (item.group, "collective")
        number = numbers[channel, rank.number] = numbers.get((channel, rank.number), -1) + 1
        key = (*channel, number)
        arrivals.setdefault(key, {})[rank.number] = rank.now
        rank.entries.append((item, number, rank.now))
        rank.keys.append(key)

    def _opening(self, rank: int) -> list[Record]:
        sizes = {"dp": 1, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "mp": 1} | (self.sizes or {"dp": self.world})
        groups = tuple(Group(name, name, ranks) for name, ranks in self.groups.items() if rank in ranks)
        rows: list[ModuleRow] = []
        for name in self.rows:
            parent = max((at for at, row in enumerate(rows) if name.startswith(f"{row.name}.")), default=0)
            depth = rows[parent].depth + 1 if rows else 0
            rows.append(ModuleRow(name, "Layer" if name else "Net", 0, parent if rows else -1, depth, "", 0, 0))
        return [
            Header(
                run_id=RUN_ID, rank=rank, world_size=self.world, local_rank=rank, local_world_size=self.world,
                node_rank=0, host=self.hosts(rank), pid=100 + rank, script="train.py", device_name="cpu",
                writer="0.1.0", python="3.11.0", torch="2.13.0", wall_ns=WALL_NS, mono_ns=0, clock_domain="one",
            ),
            Plan(start=WARMUP, counted=0, timed=self.steps),
            Topology(source="declared", sizes=sizes, coordinates=dict.fromkeys(sizes, 0) | self.coordinates(rank)),
            Tree(first_row=0, rows=tuple(rows)),
            *([Parameters(0, self.parameters)] if self.parameters else []),
            CollectiveWindow(groups=groups, source="flight recorder", message_source="patches", entries=1),
            *([ExpertLayers(self.layers(rank))] if self.layers(rank) else []),
        ]  # fmt: skip

    def _step(self, rank: _Rank, iteration: int, start: int) -> list[Record]:
        ends = [turn[2] for turn in rank.turns[1:]] + [rank.now]
        forward, backward = np.zeros(len(self.rows), np.int64), np.zeros(len(self.rows), np.int64)
        phases = dict.fromkeys(PHASES, 0)
        numbers: dict[int, int] = {}
        long = []
        for (owner, phase, begin), end in zip(rank.turns, ends, strict=True):
            phases[phase] += end - begin
            numbers[owner] = numbers.get(owner, -1) + 1
            if owner != NO_ROW:
                (backward if owner < 0 else forward)[~owner if owner < 0 else owner] += end - begin
            if end - begin >= LONG_TURN_NS:
                long.append((owner, numbers[owner], begin, end))
        owners, turn_numbers, begins, turn_ends = (np.array(column, np.int64) for column in zip(*long, strict=True))
        timeline = Timeline(
            iteration, "training", start_ns=start, end_ns=rank.now, phase_names=PHASES,
            phase=np.array([PHASES.index(phase) for _, phase, _ in rank.turns], np.int32),
            phase_start_ns=np.array([begin for _, _, begin in rank.turns], np.int64),
            turn_owner=owners.astype(np.int32), turn_number=turn_numbers, turn_start_ns=begins, turn_end_ns=turn_ends,
        )  # fmt: skip
        return [
            Step(
                iteration=iteration, mode="training", start_wall_ns=WALL_NS + start, duration_ns=rank.now - start,
                phases_ns=phases, micro_batches=1, batch_size=self.samples(rank.number),
                samples=self.samples(rank.number), peak_memory_bytes=0, memory_source="rss",
                calls=np.ones(len(self.rows), np.uint32), forward_ns=forward, backward_ns=backward,
            ),
            timeline,
            self._collectives(rank, iteration),
        ]  # fmt: skip

    def _collectives(self, rank: _Rank, iteration: int) -> Collectives:
        groups = list(self.groups)
        ops = sorted({item.op for item, _, _ in rank.entries})
        size = np.array([item.size for item, _, _ in rank.entries], np.int64)
        return Collectives(
            iteration, "training", group_names=tuple(groups), ops=tuple(ops),
            group=np.array([groups.index(item.group) for item, _, _ in rank.entries], np.int32),
            number=np.array([number for _, number, _ in rank.entries], np.int64),
            op=np.array([ops.index(item.op) for item, _, _ in rank.entries], np.int32),
            enqueued_ns=np.array([when for _, _, when in rank.entries], np.int64),
            input_bytes=size, output_bytes=size,
            peer=np.array([item.peer for item, _, _ in rank.entries], np.int32),
            tag=np.zeros(len(rank.entries), np.int32), thread=np.ones(len(rank.entries), np.int32),
            waited_from_ns=np.array([rank.waited.get(one, (0, 0))[0] for one in range(len(rank.entries))], np.int64),
            waited_until_ns=np.array([rank.waited.get(one, (0, 0))[1] for one in range(len(rank.entries))], np.int64),
        )  # fmt: skip
