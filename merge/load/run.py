"""From a path to the recorded ranks: finds the shards, reads what can be read, and picks one shard a rank.

    files -> candidates (reduced at once, one a file) -> one for each rank (distprof.rank.selection) -> LoadedRun

What could not be read becomes a note, in words fit for the report's first page; files are named without their folder,
and everything is in rank order, so that the same shards give the same report wherever they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from distprof.errors import DataError, UsageError
from distprof.heartbeat.hang_file import Hang, read_hangs
from distprof.merge.load.evaluated_models import with_evaluated_apart
from distprof.merge.load.notes import (
    beside_notes,
    damage_notes,
    earlier_notes,
    error_notes,
    generation_notes,
    launch_notes,
    reading_notes,
)
from distprof.merge.load.one_job import check_one_job, without_copies
from distprof.merge.load.packing import Unread
from distprof.merge.load.rank import RankData, RankReader
from distprof.merge.load.reading import Executors, in_this_process, read_files
from distprof.merge.wording import join_words
from distprof.plain import dataclass
from distprof.rank.selection import select_shards
from distprof.rank_names import number_spans
from distprof.records import FORWARD, TRAINING
from distprof.run_folder import MANIFEST, SHARDS, Manifest, RunFolder
from distprof.shard.reader import Shard

#: (files read, files in all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """What was recorded, one :class:`RankData` a rank, ranks ascending."""

    run_id: str
    name: str
    world_size: int
    ranks: tuple[RankData, ...]
    notes: tuple[str, ...]
    hangs: tuple[Hang, ...] = ()  # as the daemons of the job found them

    @property
    def missing_ranks(self) -> tuple[int, ...]:
        recorded = {data.rank for data in self.ranks}
        return tuple(rank for rank in range(self.world_size) if rank not in recorded)

    @cached_property
    def mode(self) -> str:
        """What an iteration is: training if any rank trained, else a forward; ranks with a window decide, if any."""
        deciding = [data for data in self.ranks if data.has_data] or self.ranks
        return TRAINING if any(data.ran(TRAINING) for data in deciding) else FORWARD

    @property
    def window_numbers(self) -> tuple[int, ...]:
        """The numbers of the windows in which any rank recorded an iteration of the run's mode, ascending."""
        return tuple(sorted({number for data in self.ranks for mode, number in data.windows if mode == self.mode}))

    def window_to_show(self, number: int | None) -> int:
        """Returns ``number``, or the last window if it is None.  Raises UsageError for a window that holds nothing."""
        numbers = self.window_numbers
        if number is None:
            return numbers[-1] if numbers else 0
        if number not in numbers:
            there = f"it has {_named_windows(numbers)}" if numbers else "it has no window with any iteration"
            raise UsageError(f"run {self.name} has no window {number}: {there}")
        return number


def _named_windows(numbers: Sequence[int]) -> str:
    return f"window{'s' if len(numbers) > 1 else ''} {number_spans(numbers)}"


def load_run(
    path: Path,
    progress: Progress | None = None,
    executors: Executors = in_this_process,
    *,
    others: Sequence[Path] = (),
) -> LoadedRun:
    """The run in folder ``path``: a run folder, or a folder with shards in it; ``executors`` gives what reads them.
    ``others``: the folders of further nodes of the same job.

    Raises DataError, in one sentence, when there is no run, nothing recorded, two runs, or a shard of another schema.
    """
    runs = [RunFolder(path), *map(RunFolder, others)]
    try:
        files = [file for run in runs for file in _shard_files(run)]
        manifests = [manifest for run in runs if (manifest := run.read_manifest()) is not None]
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror}") from None
    files.sort(key=lambda file: file.name)
    candidates, unread = _read_all(files, progress, executors)
    if not candidates:
        name, why = next(iter(unread.items()))
        raise DataError(f"no shard in {path} can be read: {name} {why}")
    notes = (*reading_notes(unread), *check_one_job(candidates, given_together=bool(others)))
    hangs = sorted((hang for run in runs for hang in read_hangs(run)), key=lambda hang: hang.wall_ns)
    return replace(_assemble(candidates, manifests, notes), hangs=tuple(hangs))


def run_of_shards(shards: Iterable[Shard]) -> LoadedRun:
    """The run that shards in memory make up.  Raises DataError when there is none, or when they are of two runs."""
    reducer = RankReader()
    candidates = [reducer.reduce(shard, Path(shard.source).name) for shard in shards]
    if not candidates:
        raise DataError("no shard was given: there is nothing to merge")
    check_one_job(candidates, given_together=False)
    return _assemble(candidates, (), ())


def _shard_files(run: RunFolder) -> list[Path]:
    """Raises DataError when the path is no run, or a run without a shard."""
    path = run.path
    if not path.is_dir():
        what = "is a file, not a run's folder" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}: give the folder that `distprof run` named at its end")
    files = run.shard_files()
    if files:
        return files
    if run.manifest.exists() or run.shards.is_dir():
        raise DataError(
            f"{path} holds no shard, no rank recorded anything: no rank called a model, or Python was started with -I, "
            "-E or -S, or by a launcher that drops PYTHONPATH (call distprof.record() in the script there)"
        )
    inner = sorted(manifest.parent.name for manifest in path.glob(f"*/{MANIFEST}"))
    hint = f"; it holds runs, give one of them: {join_words(inner)}" if inner else ""
    raise DataError(f"{path} is no run: it has neither {MANIFEST} nor shards ({SHARDS}/rank*.msgpack){hint}")


def _read_all(
    files: Sequence[Path], progress: Progress | None, executors: Executors
) -> tuple[list[RankData], dict[str, str]]:
    """(what was read, why the other files were not, by name).  Raises OtherSchema."""
    found = read_files(files, executors, lambda done: progress(done, len(files)) if progress else None)
    unread = {one.name: one.why for one in found if isinstance(one, Unread)}
    return [one for one in found if isinstance(one, RankData)], unread


def _assemble(candidates: Sequence[RankData], manifests: Sequence[Manifest], notes: tuple[str, ...]) -> LoadedRun:
    found = select_shards(without_copies(candidates))
    manifest = next((one for one in manifests if one.run_id == found.run_id), next(iter(manifests), None))
    passed_over = [data for data in found.passed_over if data.tells_something]
    return LoadedRun(
        run_id=found.run_id,
        name=manifest.name if manifest else found.run_id,
        world_size=found.world_size,
        ranks=with_evaluated_apart(found.chosen),
        notes=(
            *notes,
            *_foreign(manifest, found.run_id),
            *generation_notes(found.chosen, passed_over, found.outside),
            *earlier_notes(found.earlier),
            *launch_notes(found.job),
            *beside_notes(found.beside),
            *damage_notes(found.chosen),
            *error_notes(found.chosen),
        ),
    )


def _foreign(manifest: Manifest | None, run_id: str) -> tuple[str, ...]:
    if manifest is None or manifest.run_id == run_id:
        return ()
    return (
        f"{MANIFEST} is of run {manifest.run_id}, but the shards are of run {run_id}: they may have been moved here",
    )
