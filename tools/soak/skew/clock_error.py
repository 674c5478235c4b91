"""Judges kept jobs again with one half of their ranks on a second host, whose clock was measured with an error.

Verdicts must not depend on it: who is slow follows from times that each rank measures on its own clock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distprof.records import ClockOffset, Header, Record
from distprof.run_folder import RunFolder
from distprof.shard.reader import Shard, read_shard
from distprof.shard.writer import FileSink, ShardWriter
from soak.console_output import Progress
from soak.skew.cases import RUN, Case
from soak.skew.conclusions import Conclusion, conclude

_FIRST, _SECOND = "first-host", "second-host"
_MS = 1_000_000


@dataclass(frozen=True)
class Comparison:
    """The conclusions of one job on two hosts: with exact clocks, and with an error."""

    case: Case
    exact: Conclusion
    wrong: Conclusion

    @property
    def changed(self) -> bool:
        """Whether somebody else is named, at another place, or for another cause."""
        return _answer(self.exact) != _answer(self.wrong)


def _answer(said: Conclusion) -> tuple[object, ...]:
    return said.finding, said.named, said.one_of, said.subject, said.phase, said.cause, said.group


def compare(case: Case, folder: Path, error_ms: float) -> Comparison:
    """Merges the job that is kept in ``folder`` twice: the clock of the second host is right, and off by the error."""
    shards = [read_shard(path) for path in RunFolder(folder / RUN).shard_files()]
    exact, wrong = (_conclude(shards, round(error * _MS)) for error in (0.0, error_ms))
    return Comparison(case, exact, wrong)


def _conclude(shards: Sequence[Shard], error_ns: int) -> Conclusion:
    with tempfile.TemporaryDirectory(prefix="distprof-soak-") as folder:
        run = RunFolder(Path(folder))
        run.shards.mkdir()
        for shard in shards:
            writer = ShardWriter(FileSink(run.shard_path(shard.header.rank, shard.header.generation)))
            for record in _on_two_hosts(shard, error_ns):
                writer.write(record)
            writer.close()
        return conclude(run.path)


def _on_two_hosts(shard: Shard, error_ns: int) -> Iterator[Record]:
    """Yields the records of a shard as of the first or the second host; both hosts read one clock in truth."""
    header = shard.header
    second = 2 * header.rank >= header.world_size
    host = _SECOND if second else _FIRST
    yield replace(header, host=host, clock_domain=host)
    if second:
        yield ClockOffset(_FIRST, header.mono_ns, error_ns, abs(error_ns) + 1, 100)
    for record in shard.records:
        if not isinstance(record, Header | ClockOffset):
            yield record


def run(cases: Sequence[Case], folder: Path, error_ms: float, progress: Progress) -> bool:
    """Compares kept jobs, prints those whose verdict changed, and returns whether none did."""
    changed = 0
    for number, case in enumerate(cases, start=1):
        found = compare(case, folder / case.name, error_ms)
        if found.changed:
            changed += 1
            progress.clear()
            print(f"{case.name}: {found.exact.words}; with a clock that is {error_ms:g} ms off: {found.wrong.words}")
        progress.say(f"{number} of {len(cases)} kept jobs")
    progress.clear()
    print(f"a clock error of {error_ms:g} ms between two hosts changed the verdict of {changed} of {len(cases)} jobs")
    return not changed
