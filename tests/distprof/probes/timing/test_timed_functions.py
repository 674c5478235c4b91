"""Tests of compiled functions that contain the whole model: it is not called, but found, counted and timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from support.recording import Seen, clock, record, recorder
from torch import Tensor, nn
from torch._inductor.output_code import CompiledFxGraph

from distprof.config.settings import Settings
from distprof.inject import no_model
from distprof.records import NO_MODULE, ONLY_COMPILED, Counts, End, Error, Parameters, Step
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard

WIDTH, ROWS = 8, 4
LINEAR = ROWS * WIDTH * WIDTH  # MACs
X = torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH)


def new_model() -> nn.Module:
    """A model of matmuls only: the compiler calls a library for them, and builds nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False)))


pytestmark = pytest.mark.usefixtures("fresh_compiler")


def counters() -> dict[str, dict[str, int]]:
    """Returns dynamo's counters; those of the disk caches depend on earlier runs."""
    kinds = ("frames", "stats", "graph_break", "unimplemented")
    return {kind: dict(torch._dynamo.utils.counters[kind]) for kind in kinds}


def train(model: nn.Module, forward: Callable[..., Any], steps: int = 6, step: Any = None) -> list[float]:
    """Returns the losses of training with ``forward`` as the model; the loss is computed outside of it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    step = optimizer.step if step is None else step(optimizer)
    losses = []
    for _ in range(steps):
        loss = forward(X).square().sum()
        loss.backward()
        step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def in_a_function(model: nn.Module, **options: Any) -> Callable[..., Any]:
    @torch.compile(fullgraph=True, **options)
    def function(x: Tensor) -> Tensor:
        y: Tensor = model(x)
        return y

    return function


def recorded(folder: Path, job: Callable[[], object], **settings: Any) -> Seen:
    seen = record(folder, job, **{"warmup": 2, "count": True, "timed": 2, **settings})
    assert not seen.of(Error)
    return seen


@pytest.fixture
def graphs_take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend on the test's clock: 20 ms forward, 30 ms backward, 7 ms without gradient, 5 ms for updates."""
    original = CompiledFxGraph.__call__

    def call(self: Any, inputs: Any) -> Any:
        of = self.fx_kwargs
        apart = 5 if self.mutated_input_idxs else 7
        clock.advance_ms(apart if of["is_inference"] else 30 if of["is_backward"] else 20)
        return original(self, inputs)

    monkeypatch.setattr(CompiledFxGraph, "__call__", call)


def test_model_in_compiled_function_is_one_region(tmp_path: Path) -> None:
    model = new_model()
    plain, as_ever = train(model, in_a_function(model)), counters()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, losses = new_model(), []
    seen = recorded(tmp_path, lambda: losses.extend(train(model, in_a_function(model))))
    assert losses == plain
    assert counters() == as_ever, "no graph, no break and no compilation more"
    assert seen.one(End).reason == "window complete"
    assert [row.name for row in seen.rows] == ["", "0", "1", "1.0"]
    assert [p.name for p in seen.one(Parameters).parameters] == ["0.weight", "1.0.weight"]
    counts, steps = seen.one(Counts), seen.of(Step)
    assert (counts.iteration, [step.iteration for step in steps]) == (2, [3, 4])
    assert counts.forward_macs.tolist() == [2 * LINEAR]
    assert counts.backward_macs.tolist() == [3 * LINEAR]
    assert not counts.recompute_macs.any() and not any(key.endswith("_macs") for key in counts.outside)
    assert (counts.compiled, counts.calls.tolist(), counts.micro_batches) == ("compiled", [1], 1)
    assert all((step.calls.tolist(), step.micro_batches, step.samples) == ([1], 1, 0) for step in steps)


def test_it_is_counted_by_module_in_eager_form(tmp_path: Path) -> None:
    model = new_model()
    seen = recorded(tmp_path, lambda: train(model, in_a_function(model)), count_eager=True)
    assert seen.by_name(seen.one(Counts).forward_macs) == {"0": LINEAR, "1.0": LINEAR}
    assert len(seen.of(Step)) == 2


@pytest.mark.usefixtures("graphs_take_time")
def test_its_time_is_the_models(tmp_path: Path) -> None:
    """Evaluation is a separate phase, and so is the time between forward and backward."""
    model = new_model()
    forward = in_a_function(model)

    def evaluated_first(x: Tensor) -> Tensor:
        with torch.no_grad():
            forward(x)
        y: Tensor = forward(x)
        clock.advance_ms(1)
        return y

    seen = recorded(tmp_path, lambda: train(model, evaluated_first))
    for step in range(2):
        assert seen.phases_ms(step) == {"evaluation": 7, "forward": 20, "outside": 1, "backward": 30}
        assert (seen.forward_ms(step), seen.backward_ms(step)) == ({"": 20}, {"": 30})
    assert seen.macs() == {"": 2 * LINEAR}, "without what was evaluated"


def test_compiled_function_and_called_model(tmp_path: Path) -> None:
    """Each has its own row; a function without a model is outside of modules."""
    model, called = new_model(), nn.Linear(WIDTH, WIDTH, bias=False)
    forward = in_a_function(model)
    double = torch.compile(lambda x: x @ torch.ones(WIDTH, WIDTH), fullgraph=True)

    seen = recorded(tmp_path, lambda: train(nn.ModuleList([model, called]), lambda x: double(called(forward(x)))))
    counts = seen.one(Counts)
    roots = [row.class_name for row in seen.rows if row.parent < 0]
    assert roots == ["Linear", "ModuleList"], "the biggest that holds the parameters"
    assert seen.by_name(counts.forward_macs) == {"": 2 * LINEAR, "1": LINEAR}
    assert counts.outside["forward_macs"] == LINEAR
    backward = int(counts.backward_macs.sum()) + counts.outside.get("backward_macs", 0)
    assert backward == (3 + 2 + 1) * LINEAR


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_take_time")
def test_a_compiled_optimizer_step_is_named_and_timed(tmp_path: Path) -> None:
    """The compiler generates its kernels.  Nothing is compiled again when the window begins or ends."""
    model = new_model()
    graphs: list[int] = []

    def compiled(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        step = torch.compile(optimizer.step)

        def counting() -> None:
            step()
            graphs.append(torch._dynamo.utils.counters["frames"]["total"])

        return counting

    seen = recorded(tmp_path, lambda: train(model, in_a_function(model), step=compiled))
    assert graphs == graphs[:1] * 6
    counts = seen.one(Counts)
    (kernel,) = counts.generated
    assert (kernel.row, kernel.optimizer, kernel.calls) == (-1, True, 1) and kernel.name.startswith("cpp_fused")
    assert seen.phases_ms() == {"forward": 20, "backward": 30, "optimizer": 5}
    assert seen.macs() == {"": 2 * LINEAR}


def test_other_backend_has_no_forward_time(tmp_path: Path) -> None:
    model = new_model()
    seen = recorded(tmp_path, lambda: train(model, in_a_function(model, backend="eager")))
    counts = seen.one(Counts)
    assert (counts.micro_batches, counts.forward_macs.tolist()) == (0, [])
    assert len(seen.one(Parameters).parameters) == 2 and len(seen.of(Step)) == 2


class Broken(nn.Module):
    """Compiled in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        torch._dynamo.graph_break()
        z: Tensor = self.second(y)
        return z


@pytest.mark.parametrize("make", [new_model, Broken])
def test_where_the_whole_step_is_compiled_our_own_code_is_not(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    """Backward and the optimizer's hooks run between the graphs, where dynamo looks at every frame."""

    def job() -> list[Any]:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        @torch.compile(backend="eager")
        def step(x: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        losses = [step(X).item() for _ in range(6)]
        counted = counters()  # but for a frame that ends with the optimizer's hook, ours, and is quietly left alone
        return [losses, counted["frames"]["total"], counted["stats"], counted["graph_break"]]

    plain, ours = job(), []
    seen = recorded(tmp_path, lambda: ours.extend(job()))
    assert ours == plain
    assert len(seen.of(Step)) == 2 and seen.one(End).reason == "window complete"


@pytest.mark.parametrize("warmup", [0, 1])
def test_the_iteration_in_which_it_is_found_is_none(tmp_path: Path, warmup: int) -> None:
    """A direct forward is not seen either."""
    weight = nn.Module()
    weight.scale = nn.Parameter(torch.ones(WIDTH))
    seen = recorded(tmp_path, lambda: train(weight, lambda x: x * weight.scale), warmup=warmup)
    assert seen.one(Counts).iteration == warmup
    assert [step.iteration for step in seen.of(Step)] == [warmup + 1, warmup + 2]


def test_a_rank_that_ran_compiled_functions_only_says_so(tmp_path: Path) -> None:
    """Without an optimizer, the model of a compiled function cannot be found."""
    RunFolder(tmp_path).shards.mkdir()
    no_model.write_no_model_shard(Settings(run_dir=str(tmp_path), run_id="r"))
    in_a_function(new_model(), backend="eager")(X)
    no_model.write_no_model_shard(Settings(run_dir=str(tmp_path), run_id="r"))
    records = [record for file in RunFolder(tmp_path).shard_files() for record in read_shard(file).records]
    assert [record.reason for record in records if isinstance(record, End)] == [NO_MODULE, ONLY_COMPILED]


def test_parameters_of_no_module_are_no_model(tmp_path: Path) -> None:
    scale = torch.ones(WIDTH, requires_grad=True)

    def job() -> None:
        optimizer = torch.optim.SGD([scale], lr=0.01)
        for _ in range(4):
            (X * scale).sum().backward()
            optimizer.step()

    recording = recorder(tmp_path)
    recording.arm()
    try:
        job()
        assert recording.rank.identity is None
    finally:
        recording.finish()
