"""The shards that ranks of one launch have made, in a run folder that other launchers may share."""

from __future__ import annotations

import contextlib
from pathlib import Path

from distprof.errors import DataError
from distprof.launcher.gather.wire import ShardId
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_header


class OwnShards:
    """Reads the header of each shard once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._is_own: dict[Path, bool] = {}

    def paths(self) -> dict[ShardId, Path]:
        """Returns (rank, generation) -> shard."""
        found = {}
        for shard, path in self._run.own_shards().items():
            if path not in self._is_own:
                with contextlib.suppress(OSError, DataError):  # its header is not whole yet, or it is no shard
                    self._is_own[path] = read_header(path).launch in ("", self._run.launch)
            if self._is_own.get(path):
                found[shard] = path
        return found
