"""Tests of the fast path in C.  The other tests of timing run both with it and with the module timer."""

from __future__ import annotations

import gc
import itertools
import shutil
import sys
import sysconfig
import time
import warnings
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.around import PatchWithFastPath, node_hooks
from support.recording import record, train
from support.records import patient
from torch import nn

from distprof.native import extension
from distprof.probes.timing import fast_path
from distprof.probes.timing.module_timer import ModuleTimer
from distprof.probes.timing.timeline import HostTimestamps, Timeline

X = torch.ones(4, 8)
needed = pytest.mark.skipif(extension.compiled is None, reason="the fast path could not be compiled")


def test_it_is_compiled_where_a_compiler_exists() -> None:
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    can_be = shutil.which(sysconfig.get_config_var("CC").split()[0]) is not None and headers.exists()
    assert (extension.compiled is not None) == can_be


class Counting(list[str]):
    """Collects the names of the calls that the module timer handled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("enter", "leave", "hook_input", "hook_output"):
            monkeypatch.setattr(ModuleTimer, name, self._counted(name, getattr(ModuleTimer, name)))

    def _counted(self, name: str, original: Any) -> Any:
        def call(*args: Any) -> Any:
            self.append(name)
            return original(*args)

        return call


@needed
def test_most_calls_use_the_fast_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All calls but the root's, and one of the module that gets the same input, which needs no gradient."""
    model = nn.Sequential(nn.Linear(8, 8), *(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(20)))
    left = Counting(monkeypatch)
    seen = record(tmp_path, lambda: train(model, X, steps=3), timed=3)
    assert sum(seen.calls().values()) == len(list(model.modules())) == 62
    root = ["enter", "hook_input", "leave", "hook_output"]
    assert left == ["enter", "hook_input", *root[1:], *root, *root]


class Strange(nn.Module):
    """A module with arguments and output that the fast path does not handle."""

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return x * 2, [more["y"] * 3]


class Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.strange, self.act, self.last = nn.Linear(8, 8), Strange(), nn.ReLU(), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        one, (other,) = self.strange(y.detach(), more={"y": y})
        named: torch.Tensor = self.last(input=self.act(one + other))
        return named


@needed
def test_other_calls_go_to_the_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = Counting(monkeypatch)
    record(tmp_path, lambda: train(Caller(), X))
    assert left.count("enter") == left.count("leave") == 1
    assert left.count("hook_input") == 4  # the root's, of no gradient, the strange one's, by name
    assert left.count("hook_output") == 2  # the root's, the strange one's


@needed
def test_wrong_arguments_are_refused() -> None:
    parts: dict[str, Any] = dict.fromkeys(
        (
            "timer",
            "row_of",
            "changes",
            "stack",
            "entered",
            "owners",
            "timestamps",
            "now",
            "nodes",
            "in_backward",
            "entering",
            "leaving",
        )
    )
    parts |= dict.fromkeys(("ended", "forward_only", "failed"))
    with pytest.raises(TypeError):
        extension.compiled.FastPath(**parts)
    parts |= {"plain": torch.Tensor, "is_grad_enabled": torch.is_grad_enabled}
    with pytest.raises(TypeError, match="works on dicts, lists and NodeHooks"):
        extension.compiled.FastPath(**parts)
    parts |= {"row_of": {}, "entering": {}, "leaving": {}, "ended": {}, "nodes": node_hooks()}
    parts |= {name: [] for name in ("changes", "stack", "entered", "owners", "in_backward")}
    made = extension.compiled.FastPath(**parts)
    entering: list[tuple[Any, ...]] = [(), (1, 2), (1, 2, 3), (1, (), {}, 4)]
    for arguments in entering:
        with pytest.raises(TypeError, match="enter"):
            made.enter(*arguments)
    leaving: list[tuple[Any, ...]] = [(), (1,), (1, 2, 3)]
    for arguments in leaving:
        with pytest.raises(TypeError, match="leave"):
            made.leave(*arguments)
    with pytest.raises(TypeError):
        extension.compiled.Hook(1, timestamps=None, now=None, owners=[], in_backward=(), failed=None)
    with pytest.raises(TypeError):
        node_hooks(owners=())


@needed
def test_rows_of_known_calls_follow_the_tree() -> None:
    """A row is taken from the call at the same place of the step before, unless another module is called there, or the
    tree has changed.
    """
    one, other = nn.Identity(), nn.Identity()
    patch = PatchWithFastPath(lambda where, error: None)
    row_of, changes, entered = {id(one): 7, id(other): 8}, [0], list[int]()
    unknown = SimpleNamespace(enter=lambda *_: None, hook_input=lambda *_: None)
    path = patch.path(unknown, row_of=row_of, changes=changes, entered=entered, stack=[0])

    def step(*called: nn.Module) -> list[int | None]:
        entered.clear()
        return [path.enter(module, (), {}) for module in called]

    assert step(one, other, one) == step(one, other, one) == [7, 8, 7]
    assert step(other, one, one, other) == step(other, one, one, other) == [8, 7, 7, 8]
    entered.extend([0] * 1000)  # calls that the timer has handled
    assert path.enter(one, (), {}) == 7
    row_of[id(one)] = 9
    assert step(other, one, one, other) == [8, 7, 7, 8]  # nobody has said that the tree has changed
    changes[0] += 1
    assert step(other, one, one, other) == [8, 9, 9, 8]
    del row_of[id(other)]
    changes[0] += 1
    assert step(other, one, one, other) == [None, 9, 9, None]


class Changing(nn.Module):
    """A model whose layer is of another class in each forward, mostly at the address of the one before."""

    KINDS = (nn.ReLU, nn.Tanh, nn.Sigmoid)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.calls = nn.Linear(8, 8), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer: nn.Module = nn.Identity()
        del self.layer
        self.layer = self.KINDS[self.calls % 3]()
        self.calls += 1
        changed: torch.Tensor = self.layer(self.layer(self.first(x)))
        return changed


def test_a_new_module_is_not_taken_for_a_freed_one(tmp_path: Path, both_ways: None) -> None:
    seen = record(tmp_path, lambda: train(Changing(), X, steps=9), timed=9)
    called = [{name for name, number in seen.calls(step).items() if number} for step in range(9)]
    assert [len(names) for names in called] == [3] * 9
    assert all(
        any(kind.__name__ in name for name in names) for names, kind in zip(called, Changing.KINDS * 3, strict=True)
    )


@needed
def test_a_failing_hook_is_reported_and_backward_goes_on() -> None:
    errors: list[BaseException] = []
    hook = extension.compiled.Hook(1, timestamps=None, now=lambda: 5, owners=[], in_backward=[0], failed=errors.append)
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    y.register_hook(hook)
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2]
    (error,) = errors
    assert isinstance(error, AttributeError)  # None has no append


@needed
@pytest.mark.parametrize("broken", ["timestamps", "now", "new_carrier", "no tensor", "is_grad_enabled"])
def test_a_failure_ends_only_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], broken: str
) -> None:
    """Any failure: the job goes on, and one line reports it."""

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    part = "new_carrier" if broken == "no tensor" else broken
    original = extension.compiled

    class Module:
        NodeHooks = original.NodeHooks

        @staticmethod
        def FastPath(**parts: Any) -> Any:
            instead = {part: object if broken == "no tensor" else fails}
            if part == "new_carrier":
                return original.FastPath(**{**parts, "nodes": node_hooks(**instead)})
            return original.FastPath(**{**parts, **instead})

    monkeypatch.setattr(extension, "compiled", Module)
    record(tmp_path, lambda: train(Caller(), X, steps=3), timed=3)
    (line,) = capfd.readouterr().err.splitlines()
    assert "the job goes on" in line and "ing a module" in line


def _name_of_caller(self: nn.Identity, x: torch.Tensor) -> torch.Tensor:
    """A forward for nn.Identity that returns the name of its calling function."""
    self.caller = sys._getframe(1).f_code.co_name  # type: ignore[assignment]
    return x


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Calls modules through a fast path whose handler returns no token."""

    def fails(where: str, error: BaseException) -> None:
        raise error

    monkeypatch.setattr(nn.Identity, "forward", _name_of_caller)
    patch = PatchWithFastPath(fails)
    patch.open(SimpleNamespace(enter=lambda *_: None))
    yield
    patch.close()


@needed
def test_forward_is_called_directly(around: None) -> None:
    module = nn.Identity()
    assert module(X) is X and module.caller == "__call__"
    linear = nn.Linear(8, 2)
    assert torch.equal(linear(input=X), linear.forward(X))
    with pytest.raises(TypeError, match="unexpected keyword argument 'twice'"):
        linear(X, twice=True)


@needed
@pytest.mark.parametrize(
    ("register", "hook"),
    [
        ("register_forward_pre_hook", lambda *_: (X * 3,)),
        ("register_forward_hook", lambda *_: X * 3),
        ("register_full_backward_hook", lambda *_: None),
        ("register_full_backward_pre_hook", lambda *_: None),
    ],
)
@pytest.mark.parametrize("everywhere", [False, True])
def test_modules_with_hooks_use_torchs_call(around: None, register: str, hook: Any, everywhere: bool) -> None:
    module = nn.Identity()
    of_all = "register_module_" + register.removeprefix("register_")
    handle = (getattr(nn.modules.module, of_all) if everywhere else getattr(module, register))(hook)
    try:
        found = module(X.clone().requires_grad_())
    finally:
        handle.remove()
    assert module.caller in ("_call_impl", "inner")
    assert torch.equal(found, X if "backward" in register else X * 3)
    module(X)
    assert module.caller == "__call__"


@needed
def test_modules_with_own_calls_use_torchs_call(
    around: None, monkeypatch: pytest.MonkeyPatch, fresh_compiler: None
) -> None:
    replaced = nn.Identity()
    vars(replaced)["_call_impl"] = lambda x: x * 5
    assert torch.equal(replaced(X), X * 5)
    replaced = nn.Identity()
    vars(replaced)["forward"] = lambda x: x * sys._getframe(1).f_code.co_name.count("_call_impl")
    assert torch.equal(replaced(X), X)
    compiled = Caller()
    compiled.compile(backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), compiled._call_impl(X))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    traced = torch.jit.trace(nn.Sequential(nn.Identity()), X, check_trace=False)
    assert "Identity" in str(traced.graph)  # torch.jit sees each module as one
    old = nn.Identity()
    del old._backward_pre_hooks  # pickled before torch had them
    with pytest.raises(AttributeError):
        old(X)
    monkeypatch.setattr(nn.Identity, "_call_impl", lambda self, x: x * 7)
    assert torch.equal(nn.Identity()(X), X * 7)


class Deprecated(nn.Module):
    """A module that issues a warning for its caller's line."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        warnings.warn("deprecated", stacklevel=2)
        found: torch.Tensor = self.linear(x)
        return found


def test_a_module_may_warn_in_the_name_of_its_caller(tmp_path: Path, both_ways: None) -> None:
    """A warning is shown once for each line it names: a line of distprof's would show it again."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        record(tmp_path, lambda: train(nn.Sequential(Deprecated()), X, steps=4), timed=4)
    places = {warning.filename for warning in caught if str(warning.message) == "deprecated"}
    assert places == {nn.modules.module.__file__}


@needed
def test_timestamps_are_stored_as_in_an_array() -> None:
    timestamps, likewise = extension.compiled.TimestampBuffer(), array("q")
    for number in [*range(-3, 200), 1 << 40, -(1 << 62), (1 << 63) - 1]:
        timestamps.append(number)
        likewise.append(number)
    assert list(timestamps) == list(likewise) and len(timestamps) == len(likewise)
    assert (timestamps[0], timestamps[-1], timestamps[57]) == (likewise[0], likewise[-1], likewise[57])
    assert timestamps.tobytes() == likewise.tobytes()
    refused: list[tuple[type[Exception], Callable[[], Any]]] = [
        (IndexError, lambda: timestamps[len(timestamps)]),
        (IndexError, lambda: timestamps[-len(timestamps) - 1]),
        (OverflowError, lambda: timestamps.append(1 << 63)),
        (TypeError, lambda: timestamps.append("1")),
        (TypeError, lambda: timestamps.__delitem__(0)),
        (TypeError, lambda: timestamps.__delitem__(slice(1, None))),
        (TypeError, lambda: timestamps.__setitem__(slice(None), [])),
    ]
    for error, refuse in refused:
        with pytest.raises(error):
            refuse()
    assert list(timestamps) == list(likewise)
    del timestamps[:]
    assert not len(timestamps) and timestamps.tobytes() == b""
    timestamps.append(5)
    assert list(timestamps) == [5]


@needed
@patient
@given(
    turns=st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0, 5, 999_999, 1_000_000, 7_000_000, 1 << 40]))),
    start=st.integers(0, 1 << 60),
)
def test_times_are_summed_as_numpy_does(turns: list[tuple[int, int]], start: int) -> None:
    timestamps, likewise = extension.compiled.TimestampBuffer(), array("q")
    for moment in itertools.accumulate((ns for _, ns in turns), initial=start):
        timestamps.append(moment)
        likewise.append(moment)
    slots = array("i", [slot for slot, _ in turns]).tobytes()
    sums, long = timestamps.sums(slots, 7, 1_000_000)
    expected = HostTimestamps(time.perf_counter_ns).sums_ns(likewise, slots, 7, 1_000_000)
    assert (array("q", sums).tolist(), long) == (expected[0].tolist(), expected[1])
    assert sum(array("q", sums)) == sum(ns for _, ns in turns)
    with pytest.raises(ValueError, match="a slot for each interval"):
        timestamps.sums(slots + b"....", 7, 1_000_000)
    if turns:
        with pytest.raises(IndexError):
            timestamps.sums(slots, min(slot for slot, _ in turns), 1_000_000)


@needed
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python's clock may be another one")
def test_timestamps_read_pythons_clock(tmp_path: Path) -> None:
    source = fast_path.host_timestamps(time.perf_counter_ns)
    timeline = Timeline(source, 0)
    hook = extension.compiled.Hook(
        7, timestamps=timeline.timestamps, now=None, owners=timeline.owners, in_backward=[0], failed=None
    )
    before = time.perf_counter_ns()
    hook(None)
    after = time.perf_counter_ns()
    intervals = timeline.finish()
    assert intervals.owners == [0, 7] and before <= intervals.timestamps[1] <= after <= intervals.end
    assert source.moments_ns(intervals.timestamps).tolist() == [*intervals.timestamps]
    assert type(fast_path.host_timestamps(lambda: 0)) is HostTimestamps  # a clock of somebody's


@needed
def test_it_keeps_no_object_alive(tmp_path: Path) -> None:
    """Neither the fast path, which is in a reference cycle with the timer, nor the modules' arguments."""
    seen: list[Any] = []

    class Giving(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(id(x))
            return x * 2

    def job() -> None:
        train(nn.Sequential(nn.Linear(8, 8), Giving(), nn.Linear(8, 8)), X, steps=4)

    def living() -> int:
        gc.collect()
        kinds = (extension.compiled.FastPath, Giving, ModuleTimer)
        return sum(type(thing) in kinds for thing in gc.get_objects())

    others = living()
    record(tmp_path, job, timed=4)
    assert len(seen) == 4 and living() == others


@needed
def test_reference_counts_do_not_change(tmp_path: Path) -> None:
    model = Caller()
    shared: list[Any] = [torch.Tensor, torch.is_grad_enabled, None, True, model, *model.children(), 1, 2, 3]
    record(tmp_path / "1", lambda: train(model, X, steps=2), timed=2)
    gc.collect()
    before = [sys.getrefcount(thing) for thing in shared]
    record(tmp_path / "2", lambda: train(model, X, steps=1_000), timed=1_000)
    gc.collect()
    assert all(abs(sys.getrefcount(thing) - count) < 900 for thing, count in zip(shared, before, strict=True))
