"""distprof's own recorder, as a rank has it, in this process; and one that is there for single steps alone."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distprof.config.settings import Settings
from distprof.recorder.recorder import Recorder
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard


@contextmanager
def recording(folder: Path, **settings: Any) -> Iterator[tuple[Recorder, Callable[[], Path]]]:
    """A recorder at work, writing to a run in ``folder``, and what finds its shard."""
    run = RunFolder(folder)
    run.shards.mkdir()
    recorder = Recorder(Settings(run_dir=str(folder), run_id="bench", **settings))
    recorder.arm()
    try:
        yield recorder, lambda: run.shard_files()[0]
    finally:
        recorder.finish()


@contextmanager
def checked(expected: dict[str, int], **settings: Any) -> Iterator[Recorder]:
    """A recorder whose shard must hold the ``expected`` records in the end."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        with recording(Path(folder), **settings) as (recorder, shard):
            yield recorder
        found = Counter(record.KIND for record in read_shard(shard()).records)
        if any(found[kind] != number for kind, number in expected.items()):
            raise RuntimeError(f"the shard holds {dict(found)}: expected {expected}")


class InTurns:
    """Puts a recorder of quiet or timed steps in place for a step; in between torch is as if it had never been there.

    It reaches into the recorder: in a job one that is away stays away.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.steps = 0
        self._leave()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._come()
        self.steps += 1
        try:
            yield
        finally:
            self._leave()

    def _come(self) -> None:
        recorder = self._recorder
        recorder.probes.instruments.watch_optimizers()
        if recorder.probes.probe is not None:
            recorder.probes.instruments.watch_backward()
            recorder.probes.probe.attach()

    def _leave(self) -> None:
        recorder = self._recorder
        if recorder.probes.probe is not None:
            recorder.probes.probe.detach()
            recorder.probes.instruments.ignore_backward()
        recorder.probes.instruments.ignore_optimizers()
