"""The soak: a small share of it, and that it fails when the reader is wrong."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distprof.shard import Shard, parse_shard


@pytest.fixture
def soak(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    file = request.config.rootpath / "tools" / "soak.py"
    spec = importlib.util.spec_from_file_location("soak", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak", module)
    spec.loader.exec_module(module)
    return module


def test_a_small_share(soak: ModuleType, tmp_path: Path) -> None:
    assert soak.__file__ is not None
    result = subprocess.run(
        [sys.executable, soak.__file__, "--mutations", "3000", "--seed", "7"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "3,000 shards in " in result.stdout


def forgetful(shard: Shard) -> None:
    shard.records.pop()
    shard.sequences.pop()


def silent(shard: Shard) -> None:
    shard.report.unread_bytes = shard.report.sequence_gaps = 0


def mistaken(shard: Shard) -> None:
    shard.records[-1] = shard.records[0]


def broken(shard: Shard) -> None:
    raise IndexError(shard.source)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (forgetful, "is whole and was not read"),
        (silent, "a loss was not reported"),
        (mistaken, "is not what was written"),
        (broken, "IndexError"),
    ],
)
def test_a_faulty_reader_fails(
    fault: Callable[[Shard], None],
    said: str,
    soak: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def reader(*arguments: Any) -> Shard:
        shard = parse_shard(*arguments)
        fault(shard)
        return shard

    monkeypatch.setattr(soak, "parse_shard", reader)
    monkeypatch.setattr(soak, "ABUSES", (soak.delete,))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert soak.soak(range(1, 50), 60, 1) == 1
    output = capsys.readouterr()
    assert said in output.err
    assert "delete failed: again with --seed 1 --first " in output.out
    assert [file.name for file in tmp_path.rglob("*.msgpack")] == ["failed.msgpack"]
