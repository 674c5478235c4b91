"""Runs the command line in the tests' own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from distprof.__main__ import main

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """``here("merge", run, env={...})`` is like ``cli``, but runs in this process."""

    def call(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = ["distprof", *map(str, arguments)]
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", command)
            for name in [name for name in os.environ if name.startswith("DISTPROF_")]:
                patch.delenv(name)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            main()
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(command, int(ended.value.code or 0), shown.out, shown.err)

    return call
