"""Tests that the counted step is complete: work between models, backward and optimizers is outside of modules.

And nobody can tell: whatever the script does there, it finds its own modes, processes and compiled code as they were.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import Seen, record
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.records import Counts, Error

WIDTH, ROWS = 8, 4
LINEAR = ROWS * WIDTH * WIDTH
X = torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH)
SQUARE = torch.eye(WIDTH)
COUNTED = 2  # the iteration, of STEPS
STEPS = 5


def total(counts: Counts, unit: str) -> int:
    """Returns the sum over all rows."""
    modules = sum(int(getattr(counts, f"{kind}_{unit}").sum()) for kind in ("forward", "backward", "recompute"))
    return modules + sum(amount for key, amount in counts.outside.items() if key.endswith(unit))


def counted(folder: Path, step: Callable[[int], object]) -> tuple[Seen, Counts]:
    """Returns the counts of one of several steps, each of which ends with an optimizer step."""
    seen = record(folder, lambda: [step(number) for number in range(STEPS)], warmup=COUNTED, count=True, timed=1)
    assert not seen.of(Error)
    assert torch._C._len_torch_dispatch_stack() == 0
    return seen, seen.one(Counts)


class Job:
    """Two models with a product before, between and after them, and a loss function in the script."""

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW) -> None:
        torch.manual_seed(0)
        self.models = nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.parameters = [p for model in self.models for p in model.parameters()]
        self.optimizer = optimizer(self.parameters, lr=0.01)
        self.losses: list[str] = []

    def __call__(self, number: int, between: Callable[[Tensor], Tensor] = lambda y: (y @ SQUARE).sin()) -> None:
        one, two = self.models
        hidden = between(one(X @ SQUARE))
        loss = ((two(hidden) @ SQUARE - X) ** 2).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.losses.append(loss.item().hex())
        self.optimizer.zero_grad()


def test_all_rows_are_torchs_count_of_the_step(tmp_path: Path) -> None:
    seen, counts = counted(tmp_path, Job())
    with FlopCounterMode(display=False) as theirs:
        Job()(0)
    assert 2 * total(counts, "macs") == theirs.get_total_flops()
    assert counts.outside["forward_macs"] == 3 * LINEAR
    assert counts.outside["backward_macs"] == 2 * LINEAR, "X needs no gradient"
    assert seen.by_name(counts.forward_macs) == {"": LINEAR, "0": LINEAR}


def test_all_rows_are_what_a_mode_counts_that_is_on_all_the_time(tmp_path: Path) -> None:
    """Element-wise work with clipping; reading the loss after the step belongs to the next step."""
    _, counts = counted(tmp_path, Job())
    job = Job()
    job(0)
    with FlopMode(Attribution()) as flat:
        job(1)
    assert total(counts, "flops") == sum(flat.flops.values())


def test_element_wise_work_by_pencil_and_paper(tmp_path: Path) -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(number: int) -> None:
        y = model(X * 2) * 3 + X  # 1, 2 an element
        y.sin().sum().backward()  # 2; cos, mul, and the 3 times
        for parameter in model.parameters():
            with torch.no_grad():
                parameter.grad.mul_(0.5)  # type: ignore[union-attr]
        optimizer.step()  # 2: the rate, and the difference

    _, counts = counted(tmp_path, step)
    size = WIDTH * WIDTH + WIDTH
    each = ROWS * WIDTH
    assert counts.outside == {"forward_flops": 5 * each, "backward_flops": 3 * each, "optimizer_flops": 3 * size}


def test_micro_batches_and_two_backwards(tmp_path: Path) -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(number: int) -> None:
        for _ in range(3):
            y = model(X @ SQUARE)
            (y @ SQUARE).sum().backward(retain_graph=True)
            (y @ SQUARE @ SQUARE).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    _, counts = counted(tmp_path, step)
    assert counts.outside["forward_macs"] == 3 * 4 * LINEAR
    assert counts.outside["backward_macs"] == 3 * 3 * LINEAR


class Drawn(Dataset[Tensor]):
    """A dataset with matrix products, which records the stack of modes where it runs."""

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, place: int) -> Tensor:
        return (X @ SQUARE)[0] * 0 + torch._C._len_torch_dispatch_stack()


@pytest.mark.parametrize("workers", [0, 1])
def test_data_is_loaded_outside_of_the_step(tmp_path: Path, workers: int) -> None:
    """In the process itself and in workers, which are forked in the counted step and inherit no mode."""
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    modes: list[float] = []

    def step(number: int) -> None:
        y = model(X)
        if number == COUNTED:
            modes.extend(batch.sum().item() for batch in DataLoader(Drawn(), batch_size=1, num_workers=workers))
        y.sum().backward()
        optimizer.step()

    _, counts = counted(tmp_path, step)
    assert modes == [0.0] * STEPS
    assert "forward_macs" not in counts.outside


def test_a_forked_child_has_no_mode(tmp_path: Path) -> None:
    def fork(y: Tensor) -> Tensor:
        child = os.fork()
        if not child:
            os._exit(torch._C._len_torch_dispatch_stack())
        assert os.waitpid(child, 0)[1] == 0
        return y

    job = Job()
    _, counts = counted(tmp_path, lambda number: job(number, fork))
    assert total(counts, "macs") > 0


def test_what_runs_without_gradient_around_models_is_evaluation(tmp_path: Path) -> None:
    teacher = nn.Linear(WIDTH, WIDTH)

    def teach(y: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(X @ SQUARE) @ SQUARE
            assert torch._C._len_torch_dispatch_stack() <= 1
        return y - wanted

    job = Job()
    seen, counts = counted(tmp_path, lambda number: job(number, teach))
    assert counts.outside["forward_macs"] == 2 * LINEAR, "the product before, and that of the loss"
    assert sum(seen.by_name(counts.forward_macs).values()) == 2 * LINEAR


class Counting(TorchDispatchMode):
    """A dispatch mode of the script."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 4)])
@pytest.mark.parametrize("inside", [False, True], ids=["between models", "after the step"])
def test_modes_of_the_scripts_come_and_go(tmp_path: Path, first: int, last: int, inside: bool) -> None:
    """Each mode sees the same ops whenever it is entered, and leaving it removes that mode."""

    def job(record_it: bool) -> tuple[int, list[str], list[int]]:
        job, mode, depths = Job(), Counting(), []

        def switch(number: int) -> None:
            if number == first:
                mode.__enter__()
            if number == last:
                mode.__exit__(None, None, None)
                depths.append(sum(type(one) is Counting for one in stack()))

        def step(number: int) -> None:
            def between(y: Tensor) -> Tensor:
                if inside:
                    switch(number)
                return y @ SQUARE

            job(number, between)
            if not inside:
                switch(number)

        if record_it:
            counts = counted(tmp_path, step)[1]
            assert total(counts, "macs") == (5 + 5) * LINEAR
        else:
            for number in range(STEPS):
                step(number)
        return mode.ops, job.losses, depths

    assert job(True) == job(False)


def stack() -> Iterator[Any]:
    return map(torch._C._get_dispatch_stack_at, range(torch._C._len_torch_dispatch_stack()))


def test_fakes_of_the_scripts_are_no_work(tmp_path: Path) -> None:
    def imagine(y: Tensor) -> Tensor:
        with FakeTensorMode():
            torch.ones(64, 64) @ torch.ones(64, 64)
        return y

    job = Job()
    _, counts = counted(tmp_path, lambda number: job(number, imagine))
    assert counts.outside["forward_macs"] == 2 * LINEAR


def test_other_threads_are_not_counted(tmp_path: Path) -> None:
    def on_other_thread(y: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: X @ SQUARE)
        thread.start()
        thread.join()
        return y

    job = Job()
    _, counts = counted(tmp_path, lambda number: job(number, on_other_thread))
    assert counts.outside["forward_macs"] == 2 * LINEAR


def test_a_mode_inside_a_generator_is_left_where_it_runs_on(tmp_path: Path) -> None:
    """One mode is entered before the counted step and left in the middle, another is left after it."""

    def streaming() -> Iterator[int]:
        while True:
            with Counting() as mode:
                yield mode.ops
                yield mode.ops

    def run(record_it: bool) -> list[int]:
        job, stream, seen = Job(), streaming(), []

        def step(number: int) -> None:
            def between(y: Tensor) -> Tensor:
                seen.append(next(stream))
                return y @ SQUARE

            job(number, between)

        if record_it:
            record(tmp_path, lambda: list(map(step, range(STEPS))), warmup=COUNTED, count=True, timed=1)
        else:
            for number in range(STEPS):
                step(number)
        assert [type(one) for one in stack()] == [Counting]
        stream.close()  # type: ignore[attr-defined]
        return seen

    assert run(True) == run(False)


def test_mode_is_off_after_an_exception(tmp_path: Path) -> None:
    job, stacks = Job(), []

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    fails = Fails()

    def step(number: int) -> None:
        job.models[0](X @ SQUARE)
        stacks.append(torch._C._len_torch_dispatch_stack())
        with pytest.raises(KeyboardInterrupt):
            fails(X)
        stacks.append(torch._C._len_torch_dispatch_stack())
        job.models[0](X)
        with torch.no_grad(), pytest.raises(KeyboardInterrupt):
            fails(X)
        stacks.append(torch._C._len_torch_dispatch_stack())
        job(number)

    counted(tmp_path, step)
    assert stacks == [0, 0, 0] * COUNTED + [1, 0, 0] + [0, 0, 0] * (STEPS - COUNTED - 1)


@pytest.mark.parametrize("counted_last", [False, True])
def test_a_job_that_ends_in_the_counted_step_leaves_nothing(tmp_path: Path, counted_last: bool) -> None:
    job = Job()

    def all_of_it() -> None:
        for number in range(COUNTED):
            job(number)
        if counted_last:
            job.models[0](X)

    assert not record(tmp_path, all_of_it, warmup=COUNTED, count=True, timed=1).of(Counts)
    assert torch._C._len_torch_dispatch_stack() == 0


@pytest.fixture
def compiler() -> Iterator[Any]:
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.parametrize("at", [COUNTED - 1, COUNTED])
def test_functions_are_compiled_between_models_as_ever(tmp_path: Path, at: int, compiler: Any) -> None:
    """Code first run in the counted step runs eagerly, and is compiled in the next."""
    found: list[list[Any]] = []
    for recorded in (False, True):
        torch._dynamo.reset()
        compiler.clear()
        job, functions = Job(), [lambda y: (y @ SQUARE).sin()]

        def step(number: int, job: Job = job, functions: list[Any] = functions) -> None:
            if number == at:
                functions[0] = torch.compile(functions[0], backend="aot_eager", fullgraph=True)
            job(number, functions[0])

        if recorded:
            assert total(counted(tmp_path, step)[1], "macs") == 10 * LINEAR
        else:
            for number in range(STEPS):
                step(number)
        found.append([job.losses, dict(compiler["stats"]), dict(compiler["graph_break"])])
    assert found[0] == found[1]


@pytest.mark.parametrize("at", [COUNTED - 1, COUNTED])
def test_an_optimizers_step_that_is_compiled(tmp_path: Path, at: int, compiler: Any) -> None:
    """Iterations begin and end inside compiled code then, which restores torch's state at its begin."""
    found: list[list[Any]] = []
    for recorded in (False, True):
        torch._dynamo.reset()
        compiler.clear()
        job = Job(torch.optim.SGD)

        def step(number: int, job: Job = job) -> None:
            if number == at:
                compiled: Any = torch.compile(job.optimizer.step, backend="eager")
                job.optimizer.step = compiled  # type: ignore[method-assign]
            job(number)

        if recorded:
            counts = counted(tmp_path, step)[1]
            # Where the step begins inside of compiled code, what is outside of modules is seen in backward only.
            assert total(counts, "macs") == (5 + (5 if at == COUNTED else 2)) * LINEAR
        else:
            for number in range(STEPS):
                step(number)
        found.append([job.losses, dict(compiler["stats"])])
    assert found[0] == found[1]


def test_a_loss_that_is_a_function_of_autograds_own(tmp_path: Path) -> None:
    """Its forward runs without gradient, but is not evaluation."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor) -> Tensor:
            return y @ SQUARE

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient @ SQUARE

    job = Job()
    _, counts = counted(tmp_path, lambda number: job(number, Loss.apply))
    assert total(counts, "macs") == 10 * LINEAR


def test_a_model_that_the_script_itself_checkpoints(tmp_path: Path) -> None:
    """Reentrant: its forward runs without gradient, but is not evaluation."""
    model = nn.Linear(WIDTH, WIDTH)
    job = Job()

    def step(number: int) -> None:
        job(number, lambda y: checkpoint(model, y, use_reentrant=True))

    _, counts = counted(tmp_path, step)
    assert int(counts.forward_macs.sum()) == 3 * LINEAR
    assert int(counts.recompute_macs.sum()) == LINEAR
