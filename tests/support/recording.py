"""Runs a recorder in this process on a job of the test, and reads its shard.

    seen = record(tmp_path, job, timed=2)
    seen.forward_ms() == {"": 1, "layers.0": 20}

Time passes on the test's clock: :class:`Ticking` modules advance it in their forward and backward, so that all times
are known exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from support.simulated.clock import FakeClock
from torch import Tensor, nn

from distprof.clock import Clock
from distprof.config.settings import Settings
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.recorder.recorder import Recorder
from distprof.records import Array, Counts, ModuleRow, Record, Step, Tree
from distprof.run_folder import RunFolder
from distprof.shard.reader import Shard, read_shard

MS = 1_000_000

#: The clock of ticking modules and of the recorders of :func:`record`.
clock = FakeClock()
hidden_from_dynamo(
    FakeClock.mono_ns
)  # torch's compiler does not trace it, as it cannot trace the functions of the real clock

Kind = TypeVar("Kind", bound=Record)


class Seen:
    """The shard that one recorder wrote."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.kinds = [record.KIND for record in shard.records]

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [record for record in self.shard.records if isinstance(record, kind)]

    def one(self, kind: type[Kind]) -> Kind:
        (record,) = self.of(kind)
        return record

    @cached_property
    def rows(self) -> list[ModuleRow]:
        return [row for tree in self.of(Tree) for row in tree.rows]

    @property
    def names(self) -> list[str]:
        return [row.name for row in self.rows]

    def by_name(self, values: Array, root: int | None = None) -> dict[str, int]:
        """Returns values above zero by the names of their rows; only those of ``root`` if it is given."""
        pairs = zip(self.rows, values.tolist(), strict=False)
        return {row.name: value for row, value in pairs if value and root in (None, row.root)}

    def forward_ms(self, step: int = 0) -> dict[str, float]:
        return {name: value / MS for name, value in self.by_name(self.of(Step)[step].forward_ns).items()}

    def backward_ms(self, step: int = 0) -> dict[str, float]:
        return {name: value / MS for name, value in self.by_name(self.of(Step)[step].backward_ns).items()}

    def phases_ms(self, step: int = 0) -> dict[str, float]:
        """Returns the phases with a time above 0."""
        return {phase: value / MS for phase, value in self.of(Step)[step].phases_ns.items() if value}

    def calls(self, step: int = 0) -> dict[str, int]:
        return self.by_name(self.of(Step)[step].calls)

    def macs(self) -> dict[str, int]:
        return self.by_name(self.of(Counts)[-1].forward_macs)


def recorder(folder: Path, clock: Clock = clock, **settings: Any) -> Recorder:
    """Returns a recorder that writes to ``folder`` and is not armed yet; by default without warm-up and counting, with
    one step.
    """
    RunFolder(folder).shards.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, Any] = {"warmup": 0, "count": False, "timed": 1, **settings}
    return Recorder(Settings(run_dir=str(folder), run_id="test", **chosen), clock)


def record(folder: Path, job: Callable[[], object], **settings: Any) -> Seen:
    """Runs ``job`` under a recorder and returns its shard."""
    recording = recorder(folder, **settings)
    recording.arm()
    try:
        job()
    finally:
        recording.finish()
    return seen(folder)


def seen(folder: Path) -> Seen:
    """Returns the only shard in ``folder``."""
    (file,) = RunFolder(folder).shard_files()
    return Seen(read_shard(file))


class _Tick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward_ms: float, backward_ms: float) -> Tensor:
        ctx.backward_ms = backward_ms
        clock.advance_ms(forward_ms)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        clock.advance_ms(ctx.backward_ms)
        return gradient.clone(), None, None


def tick(x: Tensor, forward_ms: float, backward_ms: float) -> Tensor:
    """Returns ``x`` after some time; its gradient also takes time."""
    ticked: Tensor = _Tick.apply(x, forward_ms, backward_ms)
    return ticked


class Ticking(nn.Module):
    """Scales its input by a parameter; takes ``forward_ms``, and ``backward_ms`` in backward, on the test's clock."""

    def __init__(self, forward_ms: float, backward_ms: float = 0) -> None:
        super().__init__()
        self.forward_ms, self.backward_ms = forward_ms, backward_ms
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return tick(x * self.scale, self.forward_ms, self.backward_ms)


def train(model: nn.Module, *inputs: Any, steps: int = 1, **named: Any) -> None:
    """Runs steps of plain training; the optimizer takes 3 ms."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.register_step_pre_hook(lambda *_: clock.advance_ms(3))
    for _ in range(steps):
        total(model(*inputs, **named)).backward()
        optimizer.step()
        optimizer.zero_grad()


def timed(folder: Path, model: nn.Module, *inputs: Any, **named: Any) -> Seen:
    """Records one timed step of training; the self times of the modules must sum to their phases."""
    seen = record(folder, lambda: train(model, *(inputs or (() if named else (torch.ones(4, 8),))), **named))
    phases = seen.phases_ms()
    assert sum(seen.forward_ms().values()) == phases.get("forward", 0)
    assert sum(seen.backward_ms().values()) == phases.get("backward", 0)
    return seen


def total(value: Any) -> Tensor:
    """Returns the sum of all tensors in ``value``, as a loss."""
    if isinstance(value, Tensor):
        return value.sum()
    inner = value.values() if isinstance(value, dict) else value
    summed: Tensor = sum(total(one) for one in inner)  # type: ignore[assignment]
    return summed
