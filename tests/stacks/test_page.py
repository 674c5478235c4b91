"""Tests that docs/STACKS.md equals the declarations of the tests in this folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.stacks_page import HOUSE, PAGE, declared, rows


@pytest.fixture
def on_page(pytestconfig: pytest.Config) -> list[list[str]]:
    if pytestconfig.getoption("--write-page", default=False):
        pytest.skip("the page is being written")
    return rows()


def test_the_table_is_what_these_tests_show(on_page: list[list[str]]) -> None:
    said = [(stack, package.partition(" ")[0], *cells) for stack, package, *cells in on_page]
    assert said == [line.cells for line in declared()], "docs/STACKS.md is out of date: run `make docs`"


def test_its_versions_are_those_that_are_pinned(on_page: list[list[str]]) -> None:
    """They are also installed where the page is written.  Other versions of Python have other pins."""
    pins = (HOUSE / "constraints.txt").read_text(encoding="utf-8")
    for pin in {version.replace(" ", "==") for _, version, *_ in on_page}:
        assert re.search(rf"^{re.escape(pin)}(;|$)", pins, re.MULTILINE), f"{pin} is not pinned: run `make docs`"


def test_no_line_is_written_whose_test_has_not_passed(tmp_path: Path, clean_env: dict[str, str]) -> None:
    before = PAGE.read_bytes()
    only = Path(__file__).with_name("test_ground.py")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--write-page", str(only)],
        cwd=tmp_path,
        env=clean_env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ended.returncode, PAGE.read_bytes()) == (1, before), ended.stderr
    (why_not,) = (line for line in ended.stdout.splitlines() if line.startswith("docs/STACKS.md is left as it was: "))
    assert "test_deepspeed.py::test_autotp, " in why_not
