"""Runs distprof's recorder in this process, for whole trainings or for single steps."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from distprof.config.settings import Settings
from distprof.heartbeat.node_files import ensure_page
from distprof.heartbeat.page_folder import remove_folder
from distprof.probes.protocol import Probe
from distprof.probes.timing.probe import TimedProbe
from distprof.recorder.recorder import Recorder
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard

_LAUNCH = "bench"


@contextmanager
def recording(folder: Path, **settings: Any) -> Iterator[tuple[Recorder, Callable[[], Path]]]:
    """Yields an armed recorder that writes to a run in ``folder``, and a function that returns its shard's path.

    It writes the heartbeat of a rank, too, into a page that no daemon reads.
    """
    run = RunFolder(folder)
    run.shards.mkdir()
    page, _ = ensure_page(run, _LAUNCH)
    recorder = Recorder(Settings(run_dir=str(folder), run_id="bench", launch=_LAUNCH, daemon=True, **settings))
    recorder.arm()
    try:
        yield recorder, lambda: run.shard_files()[0]
    finally:
        recorder.finish()
        remove_folder(page.token)


@contextmanager
def checked(expected: dict[str, int], **settings: Any) -> Iterator[Recorder]:
    """Yields an armed recorder.  Raises RuntimeError if its shard lacks the ``expected`` records: kind -> number."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        with recording(Path(folder), **settings) as (recorder, shard):
            yield recorder
        found = Counter(record.KIND for record in read_shard(shard()).records)
        if any(found[kind] != number for kind, number in expected.items()):
            raise RuntimeError(f"the shard holds {dict(found)}: expected {expected}")


class SwitchedRecorder:
    """Attaches a recorder of quiet or timed steps for single steps; between them torch is as without a recorder.

    It uses the recorder's own parts: in a job a detached recorder is not attached again.  The hooks on parameters,
    which the first timed step of a job registers for all others, are registered again before each step.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._hooked: list[nn.Module] = []  # those whose parameters have hooks
        self.steps = 0
        self._detach()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._attach()
        self.steps += 1
        try:
            yield
        finally:
            self._detach()

    def _attach(self) -> None:
        recorder = self._recorder
        recorder.probes.instruments.watch_optimizers()
        if recorder.probes.probe is not None:
            recorder.probes.instruments.watch_backward()
            recorder.probes.probe.attach()
            self._hook_parameters(recorder.probes.probe)

    def _detach(self) -> None:
        recorder = self._recorder
        if recorder.probes.probe is not None:
            self._note_hooked(recorder.probes.probe)
            recorder.probes.probe.detach()
            recorder.probes.instruments.ignore_backward()
        recorder.probes.instruments.ignore_optimizers()

    def _note_hooked(self, probe: Probe) -> None:
        if isinstance(probe, TimedProbe):
            tree, ended = self._recorder.rank.tree, probe.timer.ended
            self._hooked = [module for module in tree.modules() if tree.row_of[id(module)] in ended]

    def _hook_parameters(self, probe: Probe) -> None:
        if isinstance(probe, TimedProbe):
            for module in self._hooked:
                probe.timer.hook_parameters(module, self._recorder.rank.tree.row_of[id(module)])
