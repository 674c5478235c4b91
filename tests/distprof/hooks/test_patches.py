"""The doors: they show every call of their kind, change none, and leave nothing behind."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.around import AroundDoor
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from distprof.hooks.patches import FunctionPatch, ModuleCallPatch, backward_patch, dataloader_patch
from distprof.probes.timing import fast_path


class Log:
    """A visitor of modules and of spans that writes down what it is told, and may fail at it."""

    def __init__(self, fail_in: str = "", interest: Callable[[nn.Module], bool] = lambda _: True) -> None:
        self.lines: list[Any] = []
        self.fail_in = fail_in
        self.interest = interest

    def _note(self, what: str, detail: Any) -> None:
        self.lines.append((what, detail))
        if what == self.fail_in:
            raise RuntimeError(f"ours, in {what}")

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        self._note("enter", type(module).__name__)
        return len(self.lines) if self.interest(module) else None

    def leave(self, token: int, output: Any) -> None:
        self._note("leave", None if output is None else "output")

    def begin(self, args: tuple[Any, ...]) -> None:
        self._note("begin", None)

    def end(self) -> None:
        self._note("end", None)


class Errors(list[tuple[str, BaseException]]):
    def __call__(self, where: str, error: BaseException) -> None:
        self.append((where, error))


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture(params=["visited", "made in C"])
def door(errors: Errors, request: pytest.FixtureRequest) -> Iterator[ModuleCallPatch]:
    if request.param == "made in C" and fast_path.compiled is None:
        pytest.skip("the shortcut could not be compiled")
    door = ModuleCallPatch(errors) if request.param == "visited" else AroundDoor(errors)
    yield door
    door.close()


class Raises(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


X = torch.ones(2, 3)
AUTOGRAD: Any = torch.autograd


def test_every_call_is_seen_as_it_nests(door: ModuleCallPatch) -> None:
    log = Log()
    door.open(log)
    nn.Sequential(nn.ReLU(), nn.Linear(3, 3))(X)
    assert [what for what, _ in log.lines] == ["enter", "enter", "leave", "enter", "leave", "leave"]
    assert [detail for what, detail in log.lines if what == "enter"] == ["Sequential", "ReLU", "Linear"]


def test_a_visitor_without_interest_is_not_told_of_the_end(door: ModuleCallPatch) -> None:
    log = Log(interest=lambda module: isinstance(module, nn.ReLU))
    door.open(log)
    nn.Sequential(nn.Linear(3, 3), nn.ReLU())(X)
    assert [what for what, _ in log.lines] == ["enter", "enter", "enter", "leave"]


def test_the_last_visitor_sees_the_calls_and_one_close_is_enough(door: ModuleCallPatch) -> None:
    original = nn.Module.__call__
    first, second = Log(), Log()
    door.open(first)
    door.open(second)
    nn.ReLU()(X)
    assert (len(first.lines), len(second.lines)) == (0, 2)
    door.close()
    assert nn.Module.__call__ is original
    door.close()
    nn.ReLU()(X)
    assert len(second.lines) == 2


@pytest.mark.parametrize("error", [ValueError("theirs"), KeyboardInterrupt(), SystemExit(3), StopIteration()])
def test_an_exception_of_the_module_passes_as_it_is(
    door: ModuleCallPatch, error: BaseException, errors: Errors
) -> None:
    log = Log()
    door.open(log)
    with pytest.raises(type(error)) as caught:
        nn.Sequential(nn.ReLU(), Raises(error))(X)
    assert caught.value is error and error.__cause__ is None and error.__context__ is None
    assert [line for line in log.lines if line[0] == "leave"] == [("leave", "output"), ("leave", None), ("leave", None)]
    assert not errors


@pytest.mark.parametrize("where", ["enter", "leave"])
def test_a_visitor_that_fails_is_told_on_and_changes_nothing(door: ModuleCallPatch, errors: Errors, where: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    expected = model(X)
    door.open(Log(fail_in=where))
    assert torch.equal(model(X), expected)
    assert {str(error) for _, error in errors} == {f"ours, in {where}"}


def test_a_visitor_that_fails_does_not_hide_an_exception_of_the_module(door: ModuleCallPatch, errors: Errors) -> None:
    door.open(Log(fail_in="leave"))
    theirs = ValueError("theirs")
    with pytest.raises(ValueError, match="theirs") as caught:
        Raises(theirs)(X)
    assert caught.value is theirs
    assert len(errors) == 1


def test_a_door_may_be_closed_inside_a_call(door: ModuleCallPatch) -> None:
    """The visitor that saw the call begin sees it end: it may have to put things back."""

    class Closes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            door.close()
            return nn.functional.relu(x)

    log = Log()
    door.open(log)
    nn.Sequential(Closes(), nn.ReLU())(X)
    assert [what for what, _ in log.lines] == ["enter", "enter", "leave", "leave"]


def test_models_do_not_know_of_it(door: ModuleCallPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    before = (inspect.signature(model.forward), inspect.signature(nn.Module.__call__), list(vars(model)))
    plain = pickle.dumps(model)
    log = Log()
    door.open(log)
    model(X)
    assert (inspect.signature(model.forward), inspect.signature(nn.Module.__call__), list(vars(model))) == before
    assert pickle.dumps(model) == plain
    assert torch.equal(copy.deepcopy(model)(X), model(X))
    torch.save(model, io.BytesIO())


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_tracing_gives_the_same_program(door: ModuleCallPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    traced, scripted = torch.fx.symbolic_trace(model), torch.jit.trace(model, X)
    door.open(Log())
    assert torch.fx.symbolic_trace(model).code == traced.code
    assert str(torch.jit.trace(model, X).graph).count("\n") == str(scripted.graph).count("\n")


def test_a_patch_that_somebody_put_over_ours_stays(door: ModuleCallPatch) -> None:
    original = nn.Module.__call__
    log, theirs = Log(), []
    door.open(log)
    ours = nn.Module.__call__

    def patch(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        theirs.append(self)
        return ours(self, *args, **kwargs)

    nn.Module.__call__ = patch  # type: ignore[method-assign]
    try:
        door.close()
        nn.ReLU()(X)
        assert (len(theirs), len(log.lines)) == (1, 0)
        door.open(log)
        nn.ReLU()(X)
        assert (len(theirs), len(log.lines)) == (2, 2)
        door.close()
        assert nn.Module.__call__ is patch
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]


def test_doors_that_are_closed_in_the_order_in_which_they_were_opened_leave_nothing(errors: Errors) -> None:
    original = nn.Module.__call__
    doors, logs = [ModuleCallPatch(errors) for _ in range(3)], [Log() for _ in range(3)]
    for door, log in zip(doors, logs, strict=True):
        door.open(log)
    doors[0].close()
    doors[1].close()
    nn.ReLU()(X)
    assert [len(log.lines) for log in logs] == [0, 0, 2]
    doors[1].open(logs[1])
    nn.ReLU()(X)
    assert [len(log.lines) for log in logs] == [0, 2, 4]
    doors[2].close()
    nn.ReLU()(X)
    assert [len(log.lines) for log in logs] == [0, 4, 4]
    doors[1].close()
    assert nn.Module.__call__ is original


@pytest.fixture
def backwards(errors: Errors) -> Iterator[FunctionPatch]:
    door = backward_patch(errors)
    yield door
    door.close()


def square() -> Tensor:
    return torch.ones(3, requires_grad=True).square().sum()


@pytest.mark.parametrize(
    "run",
    [
        lambda: square().backward(),
        lambda: torch.autograd.backward(square()),
        lambda: torch.autograd.grad(x := square(), x),
    ],
    ids=["backward", "autograd.backward", "autograd.grad"],
)
def test_every_backward_is_a_span(backwards: FunctionPatch, run: Callable[[], object]) -> None:
    log = Log()
    backwards.open(log)
    run()
    assert [what for what, _ in log.lines] == ["begin", "end"]


def test_backwards_nest(backwards: FunctionPatch) -> None:
    class Inner(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            with torch.enable_grad():
                square().backward()
            return gradient

    log = Log()
    backwards.open(log)
    Inner.apply(torch.ones(2, requires_grad=True)).sum().backward()
    assert [what for what, _ in log.lines] == ["begin", "begin", "end", "end"]


def test_a_backward_that_fails_fails_as_ever(backwards: FunctionPatch) -> None:
    log = Log()
    backwards.open(log)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.ones(()).backward()
    assert [what for what, _ in log.lines] == ["begin", "end"]


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_span_visitor_that_fails_changes_nothing(backwards: FunctionPatch, errors: Errors, where: str) -> None:
    backwards.open(Log(fail_in=where))
    x = torch.ones(3, requires_grad=True)
    x.square().sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2]
    assert [place for place, _ in errors] == ["backward"]


def test_both_names_of_the_engine_are_put_back(backwards: FunctionPatch) -> None:
    before = AUTOGRAD._engine_run_backward, torch.autograd.graph._engine_run_backward
    backwards.open(Log())
    assert AUTOGRAD._engine_run_backward is not before[0]
    backwards.open(Log())  # again: still one layer
    backwards.close()
    assert (AUTOGRAD._engine_run_backward, torch.autograd.graph._engine_run_backward) == before


def test_a_patch_over_a_function_stays_and_ours_falls_silent(backwards: FunctionPatch) -> None:
    original, log = AUTOGRAD._engine_run_backward, Log()
    backwards.open(log)
    ours = AUTOGRAD._engine_run_backward

    def patch(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    AUTOGRAD._engine_run_backward = patch
    try:
        backwards.close()
        assert AUTOGRAD._engine_run_backward is patch
        square().backward()
        assert not log.lines
    finally:
        AUTOGRAD._engine_run_backward = original


@pytest.mark.parametrize("workers", [0, 1])
def test_every_wait_for_a_batch_is_a_span_the_last_one_too(errors: Errors, workers: int) -> None:
    door, log = dataloader_patch(errors), Log()
    original = _BaseDataLoaderIter.__next__
    door.open(log)
    try:
        batches = [
            batch.tolist() for (batch,) in DataLoader(TensorDataset(torch.arange(4)), batch_size=2, num_workers=workers)
        ]
    finally:
        door.close()
    assert batches == [[0, 1], [2, 3]]
    assert [what for what, _ in log.lines] == ["begin", "end"] * 3
    assert _BaseDataLoaderIter.__next__ is original and not errors


def test_dynamo_takes_ours_for_torchs_own_and_a_users_patch_for_what_it_is(door: ModuleCallPatch) -> None:
    """Where it finds another than the one it knows, it traces through it and guards on it."""
    utils: Any = importlib.import_module("torch._dynamo.utils")
    dynamo: Any = importlib.import_module("torch._dynamo.variables.nn_module")

    original = nn.Module.__call__
    assert utils.unpatched_nn_module_call is dynamo.unpatched_nn_module_call is original
    door.open(Log())
    assert utils.unpatched_nn_module_call is dynamo.unpatched_nn_module_call is nn.Module.__call__ is not original
    door.close()
    assert utils.unpatched_nn_module_call is dynamo.unpatched_nn_module_call is original

    def patch(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    nn.Module.__call__ = patch  # type: ignore[method-assign]
    try:
        door.open(Log())
        door.close()
        assert dynamo.unpatched_nn_module_call is original
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]
