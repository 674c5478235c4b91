"""Serves a node's metrics as long as its daemon runs: over HTTP, and as a file that node-exporter reads."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import start_http_server, write_to_textfile

from distprof.config.settings import Settings
from distprof.launcher.daemon.metrics.collector import RankCollector, registry_of
from distprof.launcher.daemon.metrics.rank_metrics import SeenRank
from distprof.run_folder import NODES, RunFolder, safe_name, write_own

#: Time between two writes of the file: shorter than any usual interval of scrapes.
_WRITE_S = 5.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Exporter:
    """Whatever fails is tried again: a port may be taken by a job that ends soon, a folder may come later."""

    def __init__(self, settings: Settings, run: RunFolder, key: str, ranks: Callable[[], Sequence[SeenRank]]) -> None:
        """``key`` is the name of this node in the run folder."""
        self._settings = settings
        self._run = run
        self._targets = f"{key}.targets.json"
        self._file = Path(settings.metrics_textfile) / f"distprof-{safe_name(run.path.name)}-{key}.prom"
        self._registry = registry_of(RankCollector(run.path.name, ranks))
        self._server: Any = None
        self._next_s = 0.0

    def refresh(self) -> None:
        """Begins to serve where that was not possible yet, and writes the file if it is old."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _WRITE_S
        if self._settings.metrics is not None and self._server is None:
            with contextlib.suppress(OSError, OverflowError):
                self._serve(self._settings.metrics)
        if self._settings.metrics_textfile:
            with contextlib.suppress(OSError):
                write_to_textfile(str(self._file), self._registry)

    def _serve(self, port: int) -> None:
        host = self._settings.metrics_host
        self._server, _ = start_http_server(port, host, self._registry)
        shown = host if host in _LOOPBACK else socket.gethostname()
        target = f"[{shown}]" if ":" in shown else shown
        targets = [{"targets": [f"{target}:{self._server.server_port}"], "labels": {}}]
        with contextlib.suppress(OSError):
            write_own(self._run.path / NODES, self._targets, json.dumps(targets) + "\n")

    def close(self) -> None:
        """Removes what would show the ranks after the end of their job."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            with contextlib.suppress(OSError):
                (self._run.path / NODES / self._targets).unlink()
        if self._settings.metrics_textfile:
            with contextlib.suppress(OSError):
                self._file.unlink()
