"""Tests of extreme models, names, clocks and jobs: memory and disk use are bounded, and there is a report."""

from __future__ import annotations

import gc
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from support.recording import Ticking, clock, record, recorder, seen, train
from support.worlds import rank_of
from torch import Tensor, nn

from distprof.clock import SystemClock
from distprof.merge.analyse import analyse
from distprof.merge.load.run import load_run
from distprof.merge.report import Report
from distprof.records import MAX_DEPTH, End, Error, Step
from distprof.run_folder import RunFolder

MB = 1 << 20
#: Module names that break lines, terminals, markup, JSON, XML or Unicode.
NAMES = ["n" * 10_000, "a\nline\r\n", "</script><b>&\"'", "\x1b[31m\x00\x07", "\ud800\u202e$x^2$", " ", "\\"]


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Chain(nn.Module):
    """Calls its children in order, whatever their names."""

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


def named_class(name: str) -> type[nn.Module]:
    """Returns a layer with experts whose class and ``repr`` have the given name."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        first, experts = self.children()
        for expert in experts.children():
            x = expert(first(x))
        return x

    class_name = name.replace("\x00", "").encode(errors="ignore").decode()
    return type(class_name, (nn.Module,), {"forward": forward, "extra_repr": lambda self: name})


def infer(model: nn.Module, steps: int) -> None:
    with torch.no_grad():
        for _ in range(steps):
            model(torch.ones(4))


def shard_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in RunFolder(folder).shard_files())


def report_of(folder: Path) -> Report:
    return analyse(load_run(folder))


def test_a_name_may_hold_anything(tmp_path: Path, cli: Callable[..., Any]) -> None:
    model = Chain()
    for name in NAMES:
        layer = named_class(name)()
        layer.add_module(name, Scale())
        layer.add_module(f"experts {name}", nn.ModuleList([Scale(), Scale()]))
        model.add_module(name, layer)
    for rank in range(4):
        with rank_of(4, rank):
            found = record(tmp_path / str(rank), lambda: infer(model, 4), clock=SystemClock(), count=True, timed=2)
        assert not found.of(Error) and found.one(End).reason == "window complete"
        assert max(map(len, found.names)) <= 1_000
        RunFolder(tmp_path / str(rank)).shard_path(rank, 0).rename(tmp_path / f"rank{rank}.g0.msgpack")

    merged = cli("merge", tmp_path)
    assert merged.returncode == 0, merged.stderr
    report = tmp_path / "report"
    json.loads((report / "summary.json").read_text(encoding="utf-8"))
    drawn = sorted((report / "plots").glob("*.svg"))
    assert {"skew_map", "expert_load", "step_spread"} <= {picture.stem for picture in drawn}
    for picture in drawn:
        ElementTree.parse(picture)
    text = (report / "summary.txt").read_text(encoding="utf-8")
    assert all(line.isprintable() for line in text.splitlines())
    assert max(map(len, text.splitlines())) < 4_000


def test_twenty_thousand_modules(tmp_path: Path) -> None:
    blocks = nn.ModuleList(Chain() for _ in range(2_000))
    for block in blocks:
        for index in range(9):
            block.add_module(str(index), Scale())
    model = Chain()
    for index, block in enumerate(blocks):
        model.add_module(str(index), block)
    found = record(tmp_path, lambda: infer(model, 2), clock=SystemClock(), count=True, timed=1)
    assert not found.of(Error) and found.one(End).reason == "window complete"
    assert len(found.rows) == 20_001
    assert shard_bytes(tmp_path) < 20_001 * 400
    assert len(report_of(tmp_path).modules) == 20_001


def test_modules_three_hundred_deep(tmp_path: Path) -> None:
    model: nn.Module = Scale()
    for _ in range(300):
        model = nn.Sequential(model)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        found = record(tmp_path, lambda: infer(model, 3), count=True, timed=2)
    finally:
        sys.setrecursionlimit(limit)
    assert not found.of(Error) and not found.shard.report.damaged
    modules = report_of(tmp_path).modules
    assert sorted(module.depth for module in modules) == [min(depth, MAX_DEPTH) for depth in range(301)]
    assert modules[0].flops == 4


def test_modules_made_in_every_forward(tmp_path: Path) -> None:
    class Maker(Chain):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(50):
                x = nn.Linear(4, 4)(x)
            return super().forward(x)

    model = Maker()
    for index in range(200):
        model.add_module(str(index), Scale())
    found = record(tmp_path, lambda: infer(model, 12), timed=10)
    assert not found.of(Error) and len(found.of(Step)) == 10
    assert shard_bytes(tmp_path) < 4 * MB


def memory() -> tuple[int, int]:
    """Returns (objects that Python tracks, peak of resident bytes)."""
    gc.collect()
    return len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Clockwork(torch.optim.Optimizer):
    """An optimizer whose step does nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


AFTER_THE_WINDOW, BEFORE_IT = {"timed": 2}, {"warmup": 10**9}


@pytest.mark.parametrize(
    ("settings", "training", "iterations"),
    [
        (AFTER_THE_WINDOW, True, 100_000),
        (AFTER_THE_WINDOW, False, 20_000),
        (BEFORE_IT, True, 20_000),
        (BEFORE_IT, False, 20_000),
    ],
)
def test_a_hundred_thousand_iterations(
    tmp_path: Path, settings: dict[str, Any], training: bool, iterations: int
) -> None:
    model, x = Scale(), torch.ones(4)
    optimizer = Clockwork(model)

    def iterate(steps: int) -> None:
        with torch.set_grad_enabled(training):
            for _ in range(steps):
                model(x)
                if training:
                    optimizer.step()

    recording = recorder(tmp_path, **settings)
    recording.arm()
    try:
        iterate(1_000)
        objects, resident = memory()
        written = shard_bytes(tmp_path)
        iterate(iterations)
        objects_now, resident_now = memory()
    finally:
        recording.finish()
    assert objects_now - objects < 100
    assert resident_now - resident < 4 * MB
    assert shard_bytes(tmp_path) - written < 200, "but for the last word"
    assert len(seen(tmp_path).of(Step)) == (2 if "timed" in settings else 0)


def test_a_wall_clock_that_jumps_moves_no_time(tmp_path: Path) -> None:
    """The clock jumps an hour back and two hours forward, within a step and between steps."""
    hour_ms = 3_600_000
    jumps = iter([-hour_ms, 2 * hour_ms, -hour_ms, hour_ms, -hour_ms])

    class Jumping(Ticking):
        def forward(self, x: Tensor) -> Tensor:
            clock.jump_wall_ms(next(jumps))
            return super().forward(x)

    found = record(tmp_path, lambda: train(Jumping(10, 20), torch.ones(1), steps=5), timed=4)
    assert not found.of(Error)
    for step in range(4):
        assert found.phases_ms(step) == {"forward": 10, "backward": 20, "optimizer": 3}
    report = report_of(tmp_path)
    assert report.ranks[0].step_durations_ns == (33_000_000,) * 4
