"""Tests of the counted step with torch.compile: nothing is recompiled, nothing stays eager, all work is counted."""

from __future__ import annotations

import gc
import math
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import torch._dynamo
from support.recording import Seen, record
from torch import Tensor, nn

import distprof
from distprof.probes.compiled.graphs import kernels_in
from distprof.records import Counts, Error, ExpertLayers, ExpertRouting, Step

WIDTH, ROWS = 8, 4
LINEAR = ROWS * WIDTH * WIDTH  # MACs
X = torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.activation: Callable[[Tensor], Tensor] = torch.tanh

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.activation(self.first(x)))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Runs:
    """A backend that runs the captured graphs and counts the runs."""

    def __init__(self) -> None:
        self.graphs = 0
        self.runs = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph(*args)

        return run


def wrapped(model: Model, backend: Any) -> Any:
    return torch.compile(model, backend=backend, fullgraph=True)


def in_place(model: Model, backend: Any) -> nn.Module:
    model.compile(backend=backend, fullgraph=True)
    return model


def regional(model: Model, backend: Any) -> nn.Module:
    for block in model.blocks:
        block.compile(backend=backend, fullgraph=True)
    return model


def functions(model: Model, backend: Any) -> nn.Module:
    """A compiled function inside the model."""

    @torch.compile(backend=backend, fullgraph=True)
    def activation(x: Tensor) -> Tensor:
        return (x @ torch.ones(WIDTH, WIDTH)).tanh()

    blocks: Any = model.blocks
    for block in blocks:
        block.activation = activation
    return model


FORMS = [wrapped, in_place, regional, functions]


pytestmark = pytest.mark.usefixtures("fresh_compiler")


class Job:
    """Six steps of training; in each, how often compiled code ran, and what the loss was."""

    def __init__(self, form: Callable[[Model, Any], nn.Module]) -> None:
        torch.manual_seed(0)
        self.backend = Runs()
        self.model = form(Model(), self.backend)
        self.runs: list[int] = []
        self.losses: list[float] = []
        self.compiled: list[dict[str, Any]] = []  # dynamo's counters

    def __call__(self) -> None:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        for _ in range(6):
            before = self.backend.runs
            loss = self.model(X).square().sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            self.runs.append(self.backend.runs - before)
            self.losses.append(loss.item())
            self.compiled.append({name: dict(kinds) for name, kinds in torch._dynamo.utils.counters.items()})


def counted(folder: Path, job: Callable[[], object], **settings: Any) -> tuple[Seen, Counts]:
    seen = record(folder, job, warmup=2, count=True, timed=2, **settings)
    assert not seen.of(Error)
    assert len(seen.of(Step)) == 2
    return seen, seen.one(Counts)


def total(counts: Counts) -> int:
    return int(counts.forward_macs.sum() + counts.backward_macs.sum() + counts.recompute_macs.sum())


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_compiled_stays_as_it_is(tmp_path: Path, form: Any, eager: bool) -> None:
    plain = Job(form)
    plain()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    job = Job(form)
    _, counts = counted(tmp_path, job, count_eager=eager)
    each = plain.runs[-1]
    assert plain.runs == [each] * 6
    assert job.runs == [each, each, 0 if eager else each, each, each, each]
    assert job.backend.graphs == plain.backend.graphs
    assert job.compiled == plain.compiled, "no graph, no break and no compilation more"
    assert job.losses == (pytest.approx(plain.losses) if eager else plain.losses)
    assert counts.compiled == ("eager" if eager else "compiled")


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_counted_whole_and_in_eager_form_by_module(tmp_path: Path, form: Any) -> None:
    _, whole = counted(tmp_path / "whole", Job(form))
    seen, each = counted(tmp_path / "each", Job(form), count_eager=True)
    names = [f"blocks.{number}.{layer}" for number in (0, 1) for layer in ("first", "second")]
    forward = dict.fromkeys([*names, "head"], LINEAR)
    if form is functions:
        forward |= {f"blocks.{number}": LINEAR for number in (0, 1)}
    assert seen.by_name(each.forward_macs) == forward
    assert total(whole) == total(each)


@pytest.mark.parametrize("eager", [False, True])
def test_a_compiled_function_of_the_scripts_is_left_alone(tmp_path: Path, eager: bool) -> None:
    """The optimizer's step is compiled, too: dynamo guards on hooks, and recompiles when one is added."""

    def job(runs: Runs) -> list[float]:
        torch.manual_seed(0)
        model, other = Model(), Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        @torch.compile(backend=runs, fullgraph=True)
        def loss_of(x: Tensor) -> Tensor:
            return model(x).square().sum()

        step = torch.compile(optimizer.step, backend=runs)
        losses = []
        for _ in range(6):
            other(X)
            loss = loss_of(X)
            loss.backward()
            step()
            losses.append(loss.item())
        torch._dynamo.reset()
        return losses

    plain, recorded, losses = Runs(), Runs(), []
    expected = job(plain)
    seen = record(tmp_path, lambda: losses.extend(job(recorded)), warmup=2, count=True, timed=2, count_eager=eager)
    assert not seen.of(Error)
    assert losses == pytest.approx(expected)
    assert recorded.graphs == plain.graphs


#: Iterations in which nothing is recorded.
BEFORE, AFTER = 13, 24


def costly(x: Tensor) -> Tensor:
    """When compiled, the factorial is a constant."""
    return x.tanh() if math.factorial(4) else x


def costly_functions(model: Model, backend: Any) -> nn.Module:
    blocks: Any = model.blocks
    for block in blocks:
        block.activation = torch.compile(costly, backend=backend, fullgraph=True)
    return model


def whole_function(model: Model, backend: Any) -> Callable[[Tensor], Any]:
    """A compiled function with the whole model, which is not called."""

    @torch.compile(backend=backend, fullgraph=True)
    def forward(x: Tensor) -> Any:
        return model(x)

    return forward


def calls_in(step: Callable[[], object]) -> Counter[str]:
    """Returns how often a step calls each function, of Python or C, other than distprof's own."""
    own, found = str(Path(distprof.__file__).parent), Counter[str]()

    def count(frame: FrameType, event: str, given: Any) -> None:
        if event in ("call", "c_call") and not frame.f_code.co_filename.startswith(own):
            found[given.__qualname__ if event == "c_call" else frame.f_code.co_name] += 1

    gc.disable()  # what it frees may have callbacks
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(None)
        gc.enable()
    return found


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("form", [wrapped, in_place, regional, costly_functions, whole_function])
def test_steps_after_the_window_make_the_same_calls_as_those_before(tmp_path: Path, form: Any, eager: bool) -> None:
    """In eager form, which they must not stay in, they would make others."""
    model = Model()
    for block in model.blocks:
        block.activation = costly  # type: ignore[assignment]
    running = form(model, Runs())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        running(X).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    calls: list[Counter[str]] = []

    def job() -> None:
        for number in range(26):
            if number in (BEFORE, AFTER):
                calls.append(calls_in(step))
            else:
                step()

    seen = record(tmp_path, job, warmup=16, count=True, timed=5, count_eager=eager)
    assert seen.one(Counts).iteration == 16 and len(seen.of(Step)) == 5
    with torch.compiler.set_stance("force_eager"):
        in_eager_form = calls_in(step)
    before, after = calls
    assert after == before
    assert before["factorial"] == 0 and in_eager_form["factorial"] == 2, "what would be noticed"


def test_evaluation_in_the_counted_step_is_compiled_as_ever(tmp_path: Path) -> None:
    backend, runs = Runs(), []
    model = wrapped(Model(), backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def job() -> None:
        for step in range(4):
            if step == 2:  # is counted
                with torch.no_grad():
                    model(X)
                    runs.append(backend.runs)
                    model(X)
                    runs.append(backend.runs)
            model(X).sum().backward()
            optimizer.step()

    record(tmp_path, job, warmup=2, count=True, timed=0, count_eager=True)
    assert runs == [3, 4]
    assert backend.graphs == 2
    assert backend.runs == 5, "all but the counted forward"


KERNELS = """
cpp_fused_gelu_0 = async_compile.cpp_pybinding(['const float*', 'float*'], r'''
extern "C"  void  kernel(const float* in_ptr0)
''')
triton_poi_fused_1 = async_compile.triton('triton_poi_fused_1', '''
def triton_poi_fused_1(in_ptr0, xnumel, XBLOCK : tl.constexpr):
    tmp0 = tl.load(in_ptr0)
''')
class Runner:
    def call(self, args):
        extern_kernels.addmm(primals_2, buf1, out=buf0)
        cpp_fused_gelu_0(buf0, buf1)
        cpp_fused_gelu_0(buf1, buf2)
        triton_poi_fused_1.run(buf0, 32, stream=stream0)
        buf5 = extern_kernels.convolution(buf4, primals_3)
"""


def test_kernels_are_read_from_what_the_compiler_wrote() -> None:
    found = kernels_in(KERNELS)
    assert found.generated == {"cpp_fused_gelu_0": 2, "triton_poi_fused_1": 1}
    assert found.extern == {"extern_kernels.addmm": 1, "extern_kernels.convolution": 1}


@pytest.mark.slow
def test_inductors_own_kernels_are_named(tmp_path: Path) -> None:
    """CUDA graphs are requested, but do not exist on CPU."""
    torch.manual_seed(0)
    model: Any = torch.compile(Model(), mode="reduce-overhead")
    model(X).square().sum().backward()  # once for both
    compiled = {name: dict(kinds) for name, kinds in torch._dynamo.utils.counters.items()}
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def job() -> list[float]:
        model.load_state_dict(start)
        model.zero_grad()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        losses = []
        for _ in range(6):
            loss = model(X).square().sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    plain, recorded, in_eager = job(), [], []
    seen, counts = counted(tmp_path / "compiled", lambda: recorded.extend(job()))
    eager, by_module = counted(tmp_path / "eager", lambda: in_eager.extend(job()), count_eager=True)
    assert recorded == plain
    assert in_eager == pytest.approx(plain)
    names = {seen.rows[kernel.row].class_name for kernel in counts.generated}
    assert names == {"OptimizedModule"}
    assert all(kernel.name.startswith("cpp_fused") and kernel.calls for kernel in counts.generated)
    assert not by_module.generated
    assert total(counts) == total(by_module) == 5 * LINEAR + 9 * LINEAR
    assert max(eager.by_name(by_module.forward_macs).values()) == LINEAR
    assert {name: dict(kinds) for name, kinds in torch._dynamo.utils.counters.items()} == compiled


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, WIDTH, WIDTH))

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        y: Tensor = torch.einsum("td,tkde->te", x, self.weight[chosen])
        return y


class MoE(nn.Module):
    """Sends a token to the expert with the largest of its first four numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Identity()
        self.experts = Experts()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.experts(x, self.router(x[:, :4].topk(2).indices))
        return y


@pytest.mark.parametrize("compiled", [True, False])
def test_routing_in_compiled_code_is_not_seen(tmp_path: Path, compiled: bool) -> None:
    backend = Runs()
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), MoE(), MoE())
    running: Any = torch.compile(model, backend=backend, fullgraph=True) if compiled else model

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(4):
            running(X).sum().backward()
            optimizer.step()

    seen = record(tmp_path, job, warmup=1, timed=2)
    assert (backend.graphs, backend.runs) == ((1, 4) if compiled else (0, 0))
    routed = [[int(layer.routed.sum()) for layer in routing.layers] for routing in seen.of(ExpertRouting)]
    assert routed == ([] if compiled else [[2 * ROWS] * 2] * 2)
    assert len(seen.one(ExpertLayers).layers) == 2
    assert seen.of(Error) == []
