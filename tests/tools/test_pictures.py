"""Tests of what `make pictures` writes into the README."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SUMMARY = "distprof: other\n\nslowest: rank 3\n\nmemory      peak 1 MiB\nexperts     none\n"


def test_the_lines_of_report_in_the_readme_are_those_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    renewed = import_module("pictures").with_first_page(README, SUMMARY)
    begin, _, rest = README.partition("```\ndistprof: demo\n")
    end = rest.partition("\n```\n")[2]
    assert end, "the README shows the first page of the demo"
    assert renewed == f"{begin}```\ndistprof: other\n\nslowest: rank 3\n\nmemory      peak 1 MiB\n```\n{end}"
