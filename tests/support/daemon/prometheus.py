"""A real Prometheus that scrapes what a test serves: the distribution's package.

Where it is missing, its tests are skipped by name; with DISTPROF_PROMETHEUS=required, as in ``.ci/run``, they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

_PATIENCE_S = 60


def require_prometheus() -> str:
    """Returns the program; skips or fails the test where it is missing."""
    found = shutil.which("prometheus")
    if found is not None:
        return found
    missing = "prometheus is not installed: the queries of the dashboard are not tested"
    if os.environ.get("DISTPROF_PROMETHEUS") == "required":
        pytest.fail(f"{missing}, and DISTPROF_PROMETHEUS=required asks for it", pytrace=False)
    pytest.skip(missing)


class Prometheus:
    """One server on the loopback address."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}/api/v1"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the series of an instant query; none while the server starts."""
        return self._get("query", query=expression).get("result", [])

    def targets(self) -> list[dict[str, Any]]:
        return self._get("targets").get("activeTargets", [])

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        try:
            with urlopen(f"{self._address}/{path}?{urlencode(parameters)}", timeout=_PATIENCE_S) as answer:
                document = json.load(answer)
        except (URLError, ConnectionError) as error:
            assert getattr(error, "code", None) in (None, 503), error  # a wrong query is 400
            return {}
        assert document["status"] == "success"
        data: dict[str, Any] = document["data"]
        return data


@contextmanager
def scraping(config: str, folder: Path) -> Iterator[Prometheus]:
    """Yields a Prometheus with this configuration."""
    program = require_prometheus()
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = (
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    with subprocess.Popen(
        [program, *flags], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            yield Prometheus(port)
        finally:
            server.kill()
