"""Runs scripts that a test writes, with or without distprof, and reads their results."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from support.forking.server import forking_python

from distprof.merge.analyse import analyse
from distprof.merge.load.run import load_run
from distprof.merge.report import Report
from distprof.records import End, Plan, Step, Tree
from distprof.run_folder import RunFolder
from distprof.shard.reader import NotAShard, Shard, read_shard

#: The begin of most scripts: a model and its steps, with training or, which starts in half the time, without.
PRELUDE = """
import os, signal, subprocess, sys, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
    def forward(self, x):
        return self.inner(x).relu()

class Other(nn.Linear):
    "A model that is not the rank's."

def train(model, steps, between=lambda step: None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        between(step)
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

def infer(model, steps, between=lambda step: None):
    for step in range(steps):
        between(step)
        with torch.no_grad():
            model(torch.ones(2, 4))

def tell_pid(rank):
    "The file is there when it is whole."
    with open(f"pid{rank}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"pid{rank}.new", f"pid{rank}")
"""
#: The timed steps of a job of one rank with a short window, and of one of several, whose first one settles.
TIMED = [2, 3, 4]
TIMED_OF_SEVERAL = [3, 4, 5]
_BIN = Path(sys.executable).parent
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


@dataclass(frozen=True)
class Ended:
    """A process that has ended, with its output."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.strip().rpartition("\n")[2]


class Started:
    """A process that runs; ``wait`` for it, or send it a signal."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait(self, seconds: float = 300) -> Ended:
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.terminate()  # a launcher ends its ranks, too
            self.process.communicate(timeout=120)
            raise
        return Ended(self.process.returncode, out, err)


@dataclass(frozen=True)
class Workplace:
    """A folder with scripts, in which jobs run; their runs are in ``runs/``."""

    folder: Path
    env: Mapping[str, str]
    launcher: Path | None = None  # stands for the Python of launchers
    python: Path | None = None  # is found as ``python``, and stands for the ranks' Python

    def forking(self) -> Workplace:
        """The same, where each Python is a fork that has imported torch: for jobs whose start-up is not tested.

        What such a process starts by ``sys.executable`` is a new Python, and its child.  No test may depend on the
        parent of a fork (:mod:`support.forking.server`).
        """
        return replace(self, launcher=forking_python(self.env), python=forking_python(self.env))

    def forking_launchers(self) -> Workplace:
        """The same, where each launcher is such a fork, and its ranks are started as ever."""
        return replace(self, launcher=forking_python(self.env))

    def write(self, name: str, text: str, prelude: str = PRELUDE) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(prelude + text if name.endswith(".py") else text, encoding="utf-8")
        return path

    def start(self, *command: object, **env: str) -> Started:
        found = {}
        if self.python:
            path = f"{self.python.parent}{os.pathsep}{self.env['PATH']}"
            found = {"PATH": path, "PYTHON_EXEC": str(self.python)}  # the second is read by torchrun
        return Started(
            subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env={**self.env, **found, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def start_distprof(self, *words: object, **env: str) -> Started:
        launcher = (self.launcher,) if self.launcher and words[0] == "run" else ()
        return self.start(*launcher, _BIN / "distprof", *words, **env)

    def distprof(self, *words: object, **env: str) -> Ended:
        return self.start_distprof(*words, **env).wait()

    def start_run(self, *words: object, name: str = "x", timed: int = 3, **env: str) -> Started:
        """Starts ``distprof run`` of ``words`` with a short window: iteration 1 is counted, the next ones are timed."""
        return self.start_distprof("run", *_ours(name, timed), *words, **env)

    def run(self, *words: object, name: str = "x", timed: int = 3, **env: str) -> Ended:
        return self.start_run(*words, name=name, timed=timed, **env).wait()

    def start_exec(self, *words: object, name: str = "x", timed: int = 3, **env: str) -> Started:
        """Starts ``distprof exec`` of ``words`` with a short window."""
        return self.start_distprof("exec", *_ours(name, timed), "--", *words, **env)

    def exec(self, *words: object, name: str = "x", timed: int = 3, **env: str) -> Ended:
        return self.start_exec(*words, name=name, timed=timed, **env).wait()

    def start_torchrun(self, *words: object, **env: str) -> Started:
        """Starts torchrun without distprof."""
        return self.start(self.launcher or sys.executable, *_TORCHRUN, *words, **env)

    def run_dir(self, name: str = "x") -> RunFolder:
        return RunFolder(self.folder / "runs" / name)

    def shards(self, name: str = "x") -> list[Shard]:
        """Returns the shards by rank, then by generation."""
        return [read_shard(path) for path in self.run_dir(name).shard_files()]

    def report(self, name: str = "x") -> Report:
        """Returns the merged report."""
        return analyse(load_run(self.run_dir(name).path))


def _ours(name: str, timed: int) -> tuple[object, ...]:
    return "--name", name, "--warmup", 1, "--timed", timed


#: A factory of workplaces, one folder each.
NewWorkplace = Callable[[], Workplace]


def iterations(shard: Shard) -> list[int]:
    """Returns the timed steps that are used; none while the plan of the shard is not written yet."""
    plans = [record for record in shard.records if isinstance(record, Plan)]
    if not plans:
        return []
    (plan,) = plans
    settled = plan.start + plan.counted + plan.settling
    steps = [record.iteration for record in shard.records if isinstance(record, Step)]
    return [iteration for iteration in steps if iteration >= settled]


def models(shard: Shard) -> list[str]:
    """Returns the classes of its root modules."""
    return [
        row.class_name for record in shard.records if isinstance(record, Tree) for row in record.rows if not row.depth
    ]


def ending(shard: Shard) -> str:
    """Returns why its recording ended; empty if the shard has no End record."""
    return next((record.reason for record in shard.records if isinstance(record, End)), "")


def damage(shard: Shard) -> str:
    """Returns which parts of it could not be read; empty if all could."""
    return f"{shard.report}" if shard.report.damaged else ""


def wait_for(condition: Callable[[], bool], seconds: float = 300, every: float = 0.02) -> None:
    """Looks ``every`` so many seconds; seldom where a look takes a processor from what is waited for."""
    until = time.monotonic() + seconds
    while not _holds(condition):
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(every)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except NotAShard:  # it was just created: the header is not written yet
        return False
