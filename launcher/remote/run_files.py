"""Which files of a run are copied to a URL, and which of those that are there are copied back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from distprof.heartbeat.hang_file import FOLDER as HANGS
from distprof.launcher.gather.own_shards import OwnShards
from distprof.run_folder import MANIFEST, REPORT, SHARDS, TRACES, RunFolder

#: A file that a merge reads, by its name below the run: names at a URL come from elsewhere.
_READ = re.compile(
    rf"{re.escape(MANIFEST)}"
    rf"|({SHARDS}/)?rank\d{{5,7}}\.g\d{{1,5}}(\.[0-9a-f]{{8}})?\.msgpack"
    rf"|{HANGS}/\d{{3}}\.(json|txt)"
    rf"|{TRACES}/window\d{{1,9}}/rank\d{{1,7}}\.json\.gz",
    re.ASCII,
)


def is_read_by_merges(name: str) -> bool:
    return _READ.fullmatch(name) is not None


class RunFiles:
    """The files of a run folder that are copied."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._own_shards = OwnShards(run)

    def all(self) -> Iterator[Path]:
        """Yields all of them."""
        yield from self._common()
        yield from self._in_folder(SHARDS)
        yield from self._in_folder(TRACES)

    def own(self) -> Iterator[Path]:
        """Yields what ranks of this launch have written, and with rank 0 what the ranks have in common: several nodes
        then copy no file twice.
        """
        shards = self._own_shards.paths()
        ranks = {rank for rank, _ in shards}
        if 0 in ranks:
            yield from self._common()
        yield from shards.values()
        traces = {self._run.trace_path(0, rank).name for rank in ranks}
        yield from (path for path in self._in_folder(TRACES) if path.name in traces)

    def _common(self) -> Iterator[Path]:
        yield self._run.manifest
        yield from self._in_folder(HANGS)
        yield from self._in_folder(REPORT)

    def _in_folder(self, name: str) -> Iterator[Path]:
        """Yields the files of a folder and of those in it; links to folders are not followed."""
        folder = self._run.path / name
        if not folder.is_symlink():
            for above, _, names in os.walk(folder):
                yield from (Path(above) / one for one in sorted(names) if not one.startswith("."))  # half written
