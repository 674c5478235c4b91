"""Fixtures for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# Tests share few cores with others, so the time of an example, or of its generation, means nothing.
settings.register_profile("distprof", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("distprof")

# Several files are tested at a time on two cores: with two torch threads each they would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

# For ``from support.x import y``.  Not by putting tests on sys.path: there, ``tests/distprof`` would shadow distprof.
_support = types.ModuleType("support")
_support.__path__ = [str(Path(__file__).parent / "support")]
sys.modules["support"] = _support
if TYPE_CHECKING:
    from support.scripts import NewWorkplace

#: Variables of a job, a scheduler or a recorder around the tests, and those that change what Python imports and writes.
_FOREIGN = (
    *("DISTPROF_", "PET_", "SLURM_", "TORCHELASTIC_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_"),
    *("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"),
)


#: What takes longest comes first, so that short files fill the end of a run of several workers.
_LONGEST = ("e2e", "stacks", "tools", "test_first_commands.py", "examples", "launcher", "commands")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m alone``, leaves out files without such tests: importing them takes longer than some of the tests."""
    if collection_path.suffix != ".py" or config.option.markexpr != "alone":
        return None
    return True if "mark.alone" not in collection_path.read_text(encoding="utf-8") else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Lets each worker begin with another file of a folder, so that each compiles a part of the files for all."""
    report = yield
    worker, workers = (os.environ.get(f"PYTEST_XDIST_WORKER{word}", "") for word in ("", "_COUNT"))
    if worker and isinstance(collector, pytest.Dir):
        first = len(report.result) * int(worker.removeprefix("gw")) // int(workers)
        report.result = [*report.result[first:], *report.result[:first]]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts files by their folders, then by their paths; within a file, the order stays."""

    def place(item: pytest.Item) -> tuple[int, str]:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return _LONGEST.index(folder) if folder in _LONGEST else len(_LONGEST), str(item.path)

    items.sort(key=place)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Runs a test with ``@pytest.mark.stack("deepspeed")`` only if DeepSpeed is installed."""
    from support.stacks import require

    for mark in item.iter_markers("stack"):
        for stack in mark.args:
            require(stack)


@pytest.fixture(scope="session")
def clean_env() -> dict[str, str]:
    """Returns the environment of a user who has just opened a terminal and activated the tests' environment.

    Ops that DeepSpeed compiles are kept in the tests' environment, and are built by its own ninja alone: another
    environment, or another version of ninja, would compile them again.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    path = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", os.defpath)))
    ops = str(Path(sys.prefix) / "torch_extensions")
    return {**env, "PATH": path, "OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": ops}


@pytest.fixture(scope="session")
def new_workplace(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> NewWorkplace:
    """Returns a function that makes folders for a test's scripts."""
    from support.scripts import Workplace

    return lambda: Workplace(tmp_path_factory.mktemp("work"), clean_env)


@pytest.fixture
def cli(tmp_path: Path, clean_env: dict[str, str]) -> Cli:
    """``cli("run", "train.py", env={...})``: runs the installed command line in its own process, in ``tmp_path``."""
    from support.processes import python

    def call(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return python("-m", "distprof", *arguments, cwd=tmp_path, env={**clean_env, **(env or {})})

    return call
