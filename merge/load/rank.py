"""One shard in the form that the analysis uses: shared tree and parameters, and its reduced windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace

from distprof.merge.load.collectives import MessageEnd, message_ends
from distprof.merge.load.module_tree import RankTree, valid_rows
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.rank_windows import RecordsByKind, rank_windows
from distprof.merge.load.topology_readings import merge_topologies
from distprof.merge.load.window import Window, roots_at_work
from distprof.merge.wording import pluralise
from distprof.plain import dataclass
from distprof.rank.plans import short_run_advice, used_steps
from distprof.records import (
    NO_MODULE,
    ONLY_COMPILED,
    ClockOffset,
    Collectives,
    Counts,
    End,
    Error,
    ExpertLayer,
    ExpertLayers,
    Header,
    Memory,
    MemoryUnknown,
    Parameters,
    Plan,
    Step,
    Suspect,
    Topology,
    Tree,
    WarmupStep,
    WindowSummary,
)
from distprof.shard.decoding import RecordCache
from distprof.shard.reader import ReadReport, Shard, last_ns


@dataclass(frozen=True, eq=False)
class RankData:
    """What one rank recorded in one generation.  ``source`` is the file's name, without its folder."""

    source: str
    header: Header
    report: ReadReport
    plans: dict[int, Plan]  # by the number of the window
    topology: Topology | None
    tree: RankTree
    parameters: ParameterSet
    layers: tuple[ExpertLayer, ...]
    memories: dict[int, Memory | MemoryUnknown]  # by the number of the window
    windows: dict[tuple[str, int], Window]  # by mode and number, those that hold anything
    errors: tuple[Error, ...]
    end: End | None
    last_ns: int = 0  # when the rank is last known to have run, wall time
    at_work: frozenset[int] = frozenset()  # the roots that training called with gradient
    evaluated: ParameterSet = field(default_factory=lambda: ParameterSet(()))  # of models that are only evaluated
    clock_offsets: tuple[ClockOffset, ...] = ()  # of its host, if this rank measured them
    message_ends: tuple[MessageEnd, ...] = ()
    step_span_ns: tuple[int, ...] = ()  # begin of the first and end of the last timed step, wall time; empty: none
    suspects: tuple[Suspect, ...] = ()  # modules that may be MoE layers, but are not understood
    warmup: tuple[WarmupStep, ...] = ()  # before the first window
    reduced: tuple[WindowSummary, ...] = ()  # of windows whose other records were removed
    models: tuple[tuple[int, int], ...] = ()  # (root, number of its model in the job), where these may differ

    @property
    def rank(self) -> int:
        return self.header.rank

    @property
    def has_data(self) -> bool:
        return bool(self.windows)

    @property
    def tells_something(self) -> bool:
        """Whether the shard has more than the sign that its process called no module, as a helper process leaves it."""
        return self.end is None or self.end.reason not in (NO_MODULE, ONLY_COMPILED)

    def ran(self, mode: str) -> bool:
        """Returns whether any window holds iterations of this mode, or warm-up iterations where there is no window."""
        modes = {recorded for recorded, _ in self.windows} or {step.mode for step in self.warmup}
        return mode in modes

    def why_incomplete(self, mode: str, number: int) -> str:
        """Returns why the window with this number is not full; empty where it is.  ``mode`` is that of the run."""
        plan = self.plans.get(number)
        if plan is None:
            return f"it did not plan window {number}" if self.plans else "its plan is missing"
        if self.windows and not self.ran(mode):
            return "it ran forward passes only, no training iterations"
        window = self.windows.get((mode, number))
        steps, counted = (window.steps, int(window.counts is not None)) if window else (0, 0)
        if steps >= plan.timed and counted >= plan.counted:
            return ""
        not_counted = ", not counted" if counted < plan.counted else ""
        ending = self._ending(None if steps else plan)
        return f"{steps} of {pluralise(plan.timed, 'timed step')}{not_counted}, {ending}"

    def _ending(self, untimed: Plan | None) -> str:
        """Returns how the recording ended; ``untimed`` is the plan of a window without a timed step."""
        if self.errors:
            return f"the recorder failed in {self.errors[0].where}"
        if self.end is None:
            return "still running, killed or unable to write"
        if self.report.damaged:
            return "its shard is damaged"
        if self.end.reason != "exit":
            return self.end.reason
        advice = short_run_advice(untimed, self.end.iterations) if untimed else ""
        return f"the script ended; {advice}" if advice else "the script ended"


class RankReader:
    """Turns shards into :class:`RankData`; records that several ranks share become one object.

    Records are equal when they are one object: the readers share a :class:`~distprof.shard.decoding.RecordCache`.
    """

    def __init__(self) -> None:
        #: The records of the shards that this reader reduces.
        self.cache = RecordCache()
        # The records are kept beside what they became, so that their ids stay theirs.
        self._trees: dict[tuple[int, ...], tuple[list[Tree], RankTree]] = {}
        self._parameter_sets: dict[tuple[int, ...], tuple[list[Parameters], ParameterSet]] = {}
        self._records: dict[RankTree | ParameterSet, Sequence[Tree] | Sequence[Parameters]] = {}

    def reduce(self, shard: Shard, source: str) -> RankData:
        """Returns what the analysis uses of a shard."""
        records = RecordsByKind(shard.records)
        of = records.of
        memories: list[Memory | MemoryUnknown] = [*of(MemoryUnknown), *of(Memory)]
        tree, plans = self.tree_of(of(Tree)), {plan.window: plan for plan in of(Plan)}
        steps = used_steps(of(Step), plans.values())
        layers, parameters = _placed_layers(of(ExpertLayers), tree), self.parameters_of(of(Parameters))
        return RankData(
            source=source,
            header=shard.header,
            report=shard.report,
            plans=plans,
            topology=merge_topologies(of(Topology)),
            tree=tree,
            parameters=parameters,
            layers=layers,
            memories={memory.window: memory for memory in memories},
            windows=rank_windows(records, tree, layers, steps),
            errors=tuple(of(Error)),
            end=records.last(End),
            last_ns=last_ns(shard),
            clock_offsets=tuple(of(ClockOffset)),
            message_ends=message_ends(shard.header.rank, of(Collectives)),
            step_span_ns=_span(of(Step)),
            suspects=_suspects(of(ExpertLayers), tree),
            warmup=_whole_iterations(of(WarmupStep)),
            reduced=tuple(of(WindowSummary)),
            at_work=roots_at_work(tree, of(Counts), of(Step)) if parameters.met_evaluated else frozenset(),
            evaluated=self.parameters_of([]),
        )

    def tree_of(self, records: list[Tree]) -> RankTree:
        """Returns the tree of some records, the same object for the same records."""
        key = tuple(map(id, records))
        if key not in self._trees:
            tree = RankTree(valid_rows(records))
            self._trees[key] = (records, tree)
            self._records[tree] = records
        return self._trees[key][1]

    def parameters_of(self, records: list[Parameters]) -> ParameterSet:
        """Returns the parameters of some records, the same object for the same records."""
        last = _last_of_each_root(records)
        used = [record for pieces in last for record in pieces]
        key = tuple(map(id, used))
        if key not in self._parameter_sets:
            parameters = ParameterSet([joined for pieces in last if (joined := _joined(pieces)) is not None])
            self._parameter_sets[key] = (used, parameters)
            self._records[parameters] = used
        return self._parameter_sets[key][1]

    def records_of(self, made: RankTree | ParameterSet) -> Sequence[Tree] | Sequence[Parameters]:
        """Returns the records of a tree or of parameters that this reader has made."""
        return self._records[made]


def _last_of_each_root(records: list[Parameters]) -> list[list[Parameters]]:
    """Returns the last records of each root, mostly one."""
    found: dict[int, list[Parameters]] = {}
    for record in records:
        if record.first:
            found.setdefault(record.root, []).append(record)
        else:
            found[record.root] = [record]
    return list(found.values())


def _joined(pieces: list[Parameters]) -> Parameters | None:
    """Returns the whole record of a root; None where a piece of it is lost."""
    if len(pieces) == 1 and not pieces[0].total:
        return pieces[0] if not pieces[0].first else None
    every = tuple(parameter for record in pieces for parameter in record.parameters)
    starts = [record.first for record in pieces]
    ends = [record.first + len(record.parameters) for record in pieces]
    whole = starts == [0, *ends[:-1]] and ends[-1] == pieces[0].total
    return replace(pieces[0], parameters=every, total=0) if whole else None


def _span(steps: list[Step]) -> tuple[int, ...]:
    if not steps:
        return ()
    return min(step.start_wall_ns for step in steps), max(step.start_wall_ns + step.duration_ns for step in steps)


def _whole_iterations(steps: list[WarmupStep]) -> tuple[WarmupStep, ...]:
    """Returns the valid records: those before iterations have begun again were no whole iterations."""
    last = max((step.restarts for step in steps), default=0)
    return tuple({step.iteration: step for step in steps if step.restarts == last}.values())


def _placed_layers(records: list[ExpertLayers], tree: RankTree) -> tuple[ExpertLayer, ...]:
    """Returns the last layers; none if one has no known row (a lost tree), because loads are read by position."""
    layers = records[-1].layers if records else ()
    return layers if all(0 <= layer.row < len(tree) for layer in layers) else ()


def _suspects(records: list[ExpertLayers], tree: RankTree) -> tuple[Suspect, ...]:
    """Returns the last suspects that have a known row."""
    suspects = records[-1].suspects if records else ()
    return tuple(suspect for suspect in suspects if 0 <= suspect.row < len(tree))
