"""Tests of the list of training stacks: it is the same everywhere, and a missing stack is reported."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from support import stacks
from support.stacks import OPTIONAL, STACKS, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

HOUSE = Path(__file__).parents[2]


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Makes all stacks look uninstalled."""

    def version(stack: str) -> str:
        raise PackageNotFoundError(stack)

    monkeypatch.setattr(stacks, "version", version)
    monkeypatch.delenv("DISTPROF_STACKS", raising=False)
    return monkeypatch


def test_a_stack_that_is_not_there_skips_its_test(bare_machine: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.skip.Exception, match="deepspeed is not installed"):
        require("deepspeed")


def test_where_stacks_are_required_a_missing_one_fails_its_test(bare_machine: pytest.MonkeyPatch) -> None:
    bare_machine.setenv("DISTPROF_STACKS", "required")
    with pytest.raises(pytest.fail.Exception, match="deepspeed is not installed"):
        require("deepspeed")


def test_an_optional_stack_is_never_required(bare_machine: pytest.MonkeyPatch) -> None:
    bare_machine.setenv("DISTPROF_STACKS", "required")
    with pytest.raises(pytest.skip.Exception, match="megatron-core is not installed"):
        require("megatron-core")


def test_a_misspelt_stack_fails_its_test() -> None:
    with pytest.raises(pytest.fail.Exception, match="deepsped is no training stack"):
        require("deepsped")


def test_what_tests_ask_for_is_what_is_installed() -> None:
    """``make test`` installs them by the extras, in pinned versions."""
    extras = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {extra: tuple(line.partition(">=")[0] for line in lines) for extra, lines in extras.items()}
    assert (names["stacks"], names["optional-stacks"]) == (STACKS, OPTIONAL)
    assert f"for stack in {' '.join(STACKS + OPTIONAL)};" in (HOUSE / "Makefile").read_text(encoding="utf-8")
    pins = (HOUSE / "constraints.txt").read_text(encoding="utf-8")
    assert all(re.search(rf"^{stack}==", pins, re.MULTILINE) for stack in STACKS + OPTIONAL)
