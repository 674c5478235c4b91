"""The examples of docs/SCRIPTS.md run, and print what the page says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from support.synthetic import write_run

PAGE = Path(__file__).parent.parent / "docs" / "SCRIPTS.md"


def test_the_examples_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    write_run(tmp_path / "runs" / "demo", dp=2, tp=2, ep=2, layers=2, steps=4, slow_rank=3, hot=3.0, noise=0)
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert (failed, tried) == (0, 11)
