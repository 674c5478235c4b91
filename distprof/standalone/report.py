"""Makes the report of one profile: writes an in-memory shard of what was measured, and merges this one rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from distprof.clock import SystemClock, anchor
from distprof.errors import DistprofError
from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import ModuleStats, Report
from distprof.merge.work.missing_reasons import PARAMETERS
from distprof.rank.identity import Identity, header
from distprof.records import ALONE, End, Plan, Record
from distprof.shard.reader import parse_shard
from distprof.shard.writer import MemorySink, ShardWriter
from distprof.standalone.aggregate import average_steps
from distprof.standalone.session import Session

NEVER_CALLED = "the model was not called while it was profiled: was a wrapper of it called, or a copy?"

#: The identity of a process that profiles itself, in any job.
ALONE_IN_THE_WORLD = Identity(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, claim=ALONE)


@dataclass(frozen=True)
class Profile:
    """The report of one profile, and the number of profiled forwards of the whole model."""

    report: Report
    steps: int

    @property
    def model(self) -> ModuleStats:
        """The profiled model's own row: its inclusive figures are the totals."""
        return self.report.modules[0]


def profile_of(
    session: Session, name: str, identity: Identity, *, average: bool, also: Iterable[Record] = ()
) -> Profile:
    """Returns what the session has measured so far: sums over all forwards, or their ``average``.

    ``name`` is the name of the run; ``also`` are records of the job around the process.
    Raises DistprofError when the session failed.
    """
    counts, ops, step = session.measured()
    called = bool(counts.calls.any() or counts.forward_flops.any() or counts.backward_flops.any())
    steps = max(counts.micro_batches, 1) if called else 0
    if average and called:
        counts, ops, step = average_steps(counts, steps), average_steps(ops, steps), step and average_steps(step, steps)
    sink = MemorySink()
    writer = ShardWriter(sink)
    writer.write(header(identity, name, anchor(SystemClock()), session.device))
    writer.write(Plan(start=0, counted=1, timed=int(step is not None)))
    measured = (counts, ops, *((step,) if step else ())) if called else ()
    for record in (*session.model_records, *also, *measured, End("window complete", 1)):
        writer.write(record)
    report = analyse(run_of_shards([parse_shard(bytes(sink.data), name)]))
    if not called:
        report = _uncalled(report)
    if not report.modules:
        raise DistprofError(f"the profile of {name} holds no module")
    return Profile(report, steps)


def _uncalled(report: Report) -> Report:
    """Returns the report of a profile in which the model was not called."""
    why = {name: why if name in PARAMETERS else NEVER_CALLED for name, why in report.summary.unavailable.items()}
    notes = (*report.run.notes, NEVER_CALLED)
    run = replace(report.run, notes=notes, incomplete={}, without_data=())
    utilization = replace(report.utilization, unavailable=NEVER_CALLED)
    return replace(report, run=run, summary=replace(report.summary, unavailable=why), utilization=utilization)


def at_steps(report: Report, steps: tuple[int, ...]) -> Report:
    """Returns the report with its rank's steps numbered as the caller numbers them."""
    return replace(report, ranks=tuple(replace(row, step_iterations=steps) for row in report.ranks))
