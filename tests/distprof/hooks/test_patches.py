"""Tests of the patches: each sees every call of its kind, changes none, and leaves nothing behind."""

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
from support.around import PatchWithFastPath
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from distprof.hooks.module_calls import ModuleCallPatch
from distprof.hooks.patches import FunctionPatch, backward_patch, dataloader_patch
from distprof.native import extension


class Log:
    """A handler of module and function calls that logs what it receives, and can fail in one method."""

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


@pytest.fixture(params=["handler", "fast path"])
def patch(errors: Errors, request: pytest.FixtureRequest) -> Iterator[ModuleCallPatch]:
    if request.param == "fast path" and extension.compiled is None:
        pytest.skip("the fast path could not be compiled")
    patch = ModuleCallPatch(errors) if request.param == "handler" else PatchWithFastPath(errors)
    yield patch
    patch.close()


class Raises(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


X = torch.ones(2, 3)
AUTOGRAD: Any = torch.autograd


def test_nested_calls_are_seen_in_order(patch: ModuleCallPatch) -> None:
    log = Log()
    patch.open(log)
    nn.Sequential(nn.ReLU(), nn.Linear(3, 3))(X)
    assert [what for what, _ in log.lines] == ["enter", "enter", "leave", "enter", "leave", "leave"]
    assert [detail for what, detail in log.lines if what == "enter"] == ["Sequential", "ReLU", "Linear"]


def test_leave_is_not_called_without_a_token(patch: ModuleCallPatch) -> None:
    log = Log(interest=lambda module: isinstance(module, nn.ReLU))
    patch.open(log)
    nn.Sequential(nn.Linear(3, 3), nn.ReLU())(X)
    assert [what for what, _ in log.lines] == ["enter", "enter", "enter", "leave"]


def test_open_replaces_the_handler_and_one_close_is_enough(patch: ModuleCallPatch) -> None:
    original = nn.Module.__call__
    first, second = Log(), Log()
    patch.open(first)
    patch.open(second)
    nn.ReLU()(X)
    assert (len(first.lines), len(second.lines)) == (0, 2)
    patch.close()
    assert nn.Module.__call__ is original
    patch.close()
    nn.ReLU()(X)
    assert len(second.lines) == 2


@pytest.mark.parametrize("error", [ValueError("theirs"), KeyboardInterrupt(), SystemExit(3), StopIteration()])
def test_an_exception_of_the_module_is_not_changed(
    patch: ModuleCallPatch, error: BaseException, errors: Errors
) -> None:
    log = Log()
    patch.open(log)
    with pytest.raises(type(error)) as caught:
        nn.Sequential(nn.ReLU(), Raises(error))(X)
    assert caught.value is error and error.__cause__ is None and error.__context__ is None
    assert [line for line in log.lines if line[0] == "leave"] == [("leave", "output"), ("leave", None), ("leave", None)]
    assert not errors


@pytest.mark.parametrize("where", ["enter", "leave"])
def test_a_failing_handler_is_reported_and_changes_nothing(patch: ModuleCallPatch, errors: Errors, where: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    expected = model(X)
    patch.open(Log(fail_in=where))
    assert torch.equal(model(X), expected)
    assert {str(error) for _, error in errors} == {f"ours, in {where}"}


def test_a_failing_handler_does_not_hide_the_modules_exception(patch: ModuleCallPatch, errors: Errors) -> None:
    patch.open(Log(fail_in="leave"))
    theirs = ValueError("theirs")
    with pytest.raises(ValueError, match="theirs") as caught:
        Raises(theirs)(X)
    assert caught.value is theirs
    assert len(errors) == 1


def test_a_patch_can_be_closed_inside_a_call(patch: ModuleCallPatch) -> None:
    """The handler of the begin also gets the end of a call: it may have to restore state."""

    class Closes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            patch.close()
            return nn.functional.relu(x)

    log = Log()
    patch.open(log)
    nn.Sequential(Closes(), nn.ReLU())(X)
    assert [what for what, _ in log.lines] == ["enter", "enter", "leave", "leave"]


def test_models_are_not_changed(patch: ModuleCallPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    before = (inspect.signature(model.forward), inspect.signature(nn.Module.__call__), list(vars(model)))
    plain = pickle.dumps(model)
    log = Log()
    patch.open(log)
    model(X)
    assert (inspect.signature(model.forward), inspect.signature(nn.Module.__call__), list(vars(model))) == before
    assert pickle.dumps(model) == plain
    assert torch.equal(copy.deepcopy(model)(X), model(X))
    torch.save(model, io.BytesIO())


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_tracing_gives_the_same_program(patch: ModuleCallPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    traced, scripted = torch.fx.symbolic_trace(model), torch.jit.trace(model, X)
    patch.open(Log())
    assert torch.fx.symbolic_trace(model).code == traced.code
    assert str(torch.jit.trace(model, X).graph).count("\n") == str(scripted.graph).count("\n")


def test_a_later_patch_of_other_code_stays(patch: ModuleCallPatch) -> None:
    original = nn.Module.__call__
    log, theirs = Log(), []
    patch.open(log)
    ours = nn.Module.__call__

    def user_patch(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        theirs.append(self)
        return ours(self, *args, **kwargs)

    nn.Module.__call__ = user_patch  # type: ignore[method-assign]
    try:
        patch.close()
        nn.ReLU()(X)
        assert (len(theirs), len(log.lines)) == (1, 0)
        patch.open(log)
        nn.ReLU()(X)
        assert (len(theirs), len(log.lines)) == (2, 2)
        patch.close()
        assert nn.Module.__call__ is user_patch
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]


def test_patches_closed_in_any_order_leave_nothing(errors: Errors) -> None:
    original = nn.Module.__call__
    patches, logs = [ModuleCallPatch(errors) for _ in range(3)], [Log() for _ in range(3)]
    for patch, log in zip(patches, logs, strict=True):
        patch.open(log)
    patches[0].close()
    patches[1].close()
    nn.ReLU()(X)
    assert [len(log.lines) for log in logs] == [0, 0, 2]
    patches[1].open(logs[1])
    nn.ReLU()(X)
    assert [len(log.lines) for log in logs] == [0, 2, 4]
    patches[2].close()
    nn.ReLU()(X)
    assert [len(log.lines) for log in logs] == [0, 4, 4]
    patches[1].close()
    assert nn.Module.__call__ is original


@pytest.fixture
def backwards(errors: Errors) -> Iterator[FunctionPatch]:
    patch = backward_patch(errors)
    yield patch
    patch.close()


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
def test_every_backward_has_a_begin_and_an_end(backwards: FunctionPatch, run: Callable[[], object]) -> None:
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


def test_a_failing_backward_raises_its_own_exception(backwards: FunctionPatch) -> None:
    log = Log()
    backwards.open(log)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.ones(()).backward()
    assert [what for what, _ in log.lines] == ["begin", "end"]


@pytest.mark.parametrize("where", ["begin", "end"])
def test_a_failing_function_handler_changes_nothing(backwards: FunctionPatch, errors: Errors, where: str) -> None:
    backwards.open(Log(fail_in=where))
    x = torch.ones(3, requires_grad=True)
    x.square().sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2]
    assert [place for place, _ in errors] == ["backward"]


def test_both_names_of_the_engine_are_restored(backwards: FunctionPatch) -> None:
    before = AUTOGRAD._engine_run_backward, torch.autograd.graph._engine_run_backward
    backwards.open(Log())
    assert AUTOGRAD._engine_run_backward is not before[0]
    backwards.open(Log())  # again: still one layer
    backwards.close()
    assert (AUTOGRAD._engine_run_backward, torch.autograd.graph._engine_run_backward) == before


def test_a_later_function_patch_stays_and_ours_is_inactive(backwards: FunctionPatch) -> None:
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
def test_every_wait_for_a_batch_is_seen(errors: Errors, workers: int) -> None:
    patch, log = dataloader_patch(errors), Log()
    original = _BaseDataLoaderIter.__next__
    patch.open(log)
    try:
        batches = [
            batch.tolist() for (batch,) in DataLoader(TensorDataset(torch.arange(4)), batch_size=2, num_workers=workers)
        ]
    finally:
        patch.close()
    assert batches == [[0, 1], [2, 3]]
    assert [what for what, _ in log.lines] == ["begin", "end"] * 3
    assert _BaseDataLoaderIter.__next__ is original and not errors


def test_dynamo_treats_only_our_replacement_as_torchs_own(patch: ModuleCallPatch) -> None:
    """Dynamo traces through any other function, and guards on it."""
    utils: Any = importlib.import_module("torch._dynamo.utils")
    dynamo: Any = importlib.import_module("torch._dynamo.variables.nn_module")

    original = nn.Module.__call__
    assert utils.unpatched_nn_module_call is dynamo.unpatched_nn_module_call is original
    patch.open(Log())
    assert utils.unpatched_nn_module_call is dynamo.unpatched_nn_module_call is nn.Module.__call__ is not original
    patch.close()
    assert utils.unpatched_nn_module_call is dynamo.unpatched_nn_module_call is original

    def user_patch(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    nn.Module.__call__ = user_patch  # type: ignore[method-assign]
    try:
        patch.open(Log())
        patch.close()
        assert dynamo.unpatched_nn_module_call is original
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]
