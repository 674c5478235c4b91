"""Tests that exceptions from outside reach the script while distprof's code runs; the recording goes on or ends
cleanly.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import get_ident
from types import FrameType
from typing import Any

import pytest
import torch
from support.recording import recorder
from torch import nn
from torch.optim import optimizer
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import distprof
from distprof.external_exceptions import came_from_outside
from distprof.native import extension
from distprof.records import End, Error, Step
from distprof.run_folder import RunFolder
from distprof.shard.reader import read_shard


class Late(Exception):
    """An exception class of the script."""


class Guard:
    """An object that is a signal handler itself, or by its method."""

    def __call__(self, number: int, _: object) -> None:
        raise Late(number)

    def late(self, number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # as a handler that guards one step does
        self(number, None)


def handler(number: int, frame: FrameType | None) -> None:
    raise Late


def forgetful(*given: object) -> None:
    """A handler that has deleted its arguments when it raises."""
    del given
    raise TimeoutError


def handle(error: type[BaseException], number: int, frame: FrameType | None) -> None:
    raise error


HANDLERS: list[Callable[..., Any]] = [
    *(handler, forgetful, Guard(), Guard().late, partial(handle, Late), partial(handle, OSError)),
    lambda *_: next(iter(()), None) or int("late"),
]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def signalled() -> None:
    signal.raise_signal(signal.SIGUSR1)


def sent(error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(get_ident()), ctypes.py_object(error))
    for _ in range(1000):
        pass


def met(act: Callable[..., object], *given: object) -> BaseException:
    try:
        act(*given)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("theirs", HANDLERS)
def test_exceptions_of_handlers_are_from_outside(theirs: Callable[..., Any]) -> None:
    signal.signal(signal.SIGUSR1, theirs)
    assert came_from_outside(met(signalled))


@pytest.mark.parametrize("error", [Late, TimeoutError, RuntimeError, KeyboardInterrupt, SystemExit])
def test_exceptions_sent_to_a_thread_are_from_outside(error: type[BaseException]) -> None:
    assert came_from_outside(met(sent, error))


def asserts() -> None:
    assert not sys.argv


def raises(error: Any) -> None:
    raise error


def forever() -> None:
    forever()


OURS: list[tuple[Any, ...]] = [
    *((asserts,), (raises, RuntimeError), (raises, RuntimeError("ours")), (raises, Late), (forever,)),
    *(
        (int, "x"),
        ([].pop,),
        ({}.pop, 1),
        (next, iter(())),
        (os.stat, "/not there"),
        (bytes, 1 << 62),
        ("é".encode, "ascii"),
    ),
    *((torch.ones(2).view, 3), (torch.mm, torch.ones(2, 3), torch.ones(2, 3)), (getattr, None, "x")),
]


@pytest.mark.parametrize("what", OURS)
def test_own_exceptions(what: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGUSR1, handler)
    assert not came_from_outside(met(*what))


# ---- in a job --------------------------------------------------------------------------------------------------------

STEPS = 7
WINDOW: dict[str, Any] = {"warmup": 1, "count": True, "timed": 3}
HOUSE = str(Path(distprof.__file__).parent)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.experts = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = checkpoint(self.up, x, use_reentrant=False)
        return x + self.experts[0](x)


def job() -> list[BaseException]:
    """Trains with a guard around each step; returns the exceptions that reached it."""
    came: list[BaseException] = []
    model = nn.Sequential(nn.Linear(4, 4), Block())
    update = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = iter(DataLoader(TensorDataset(torch.ones(2 * STEPS, 4)), batch_size=2))
    while True:
        try:
            (batch,) = next(batches)
            model(batch).sum().backward()
            update.step()
            update.zero_grad()
        except StopIteration:
            return came
        except BaseException as error:
            came.append(error)


#: Clocks are read again where another process came between, so the number of lines differs from run to run.
SPARE_LINES = 100
#: Callbacks of weak references and of the garbage collector: no exception can leave them, Python prints it.
CALLBACKS = ("_forget", "<lambda>", "_collects", "_note")


class At:
    """Counts the lines that distprof's code runs, and raises at the one with this number."""

    def __init__(self, line: int, act: Callable[[], object]) -> None:
        self.line, self.act, self.lines = line, act, 0

    def __call__(self, frame: FrameType, event: str, _: object) -> At | None:
        code = frame.f_code
        if not code.co_filename.startswith(HOUSE) or code.co_name in CALLBACKS:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.line:
                self.act()
        return self


def run(folder: Path, at: At) -> tuple[list[BaseException], set[str]]:
    """Returns the exceptions that reached the script, and the kinds of all records."""
    call, recording = nn.Module.__call__, recorder(folder, **WINDOW)
    recording.arm()
    before = sys.gettrace()
    sys.settrace(at)
    try:
        came = job()
    finally:
        sys.settrace(before)
        recording.finish()
    assert nn.Module.__call__ is call and torch._C._len_torch_dispatch_stack() == 0
    assert not optimizer._global_optimizer_post_hooks
    kinds: set[str] = set()
    for path in RunFolder(folder).shard_files():
        if not path.stat().st_size:
            continue  # it came when the file had just been created
        shard = read_shard(path)
        kinds |= {record.KIND for record in shard.records}
        assert (shard.report.unread_bytes, shard.report.malformed) == (0, [])
        assert not shard.report.sequence_gaps or Error.KIND in kinds  # it came before a record was written
        iterations = [record.iteration for record in shard.records if isinstance(record, Step)]
        assert iterations == sorted({*iterations}) and {*iterations} <= {2, 3, 4}
    return came, kinds


@pytest.fixture(params=["in C", "in Python"])
def fast_path_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in Python":
        monkeypatch.setattr(extension, "compiled", None)
    elif extension.compiled is None:
        pytest.skip("not compiled here")


@pytest.mark.usefixtures("fast_path_kind")
@pytest.mark.parametrize("how", ["signal", "sent", "interrupt"])
def test_exceptions_at_any_line_reach_the_script(tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    signal.signal(signal.SIGUSR1, handler)
    error: type[BaseException] = {"signal": Late, "sent": Late, "interrupt": KeyboardInterrupt}[how]
    act = signalled if how == "signal" else partial(sent, error)
    whole = At(0, act)
    came, kinds = run(tmp_path / "whole", whole)
    assert not came and {"counts", "step", "expert_load", End.KIND} <= kinds and Error.KIND not in kinds
    again = At(0, act)  # some lines run only once a process
    run(tmp_path / "again", again)
    went_on = 0
    first = 1 + sum(map(ord, how)) % 7  # each kind meets other lines
    for line in range(first, again.lines - SPARE_LINES, again.lines // 25):
        came, kinds = run(tmp_path / str(line), At(line, act))
        assert [type(one) for one in came] == [error], f"at line {line}"
        went_on += "step" in kinds and Error.KIND not in kinds
    assert went_on > 4  # most lines are outside the counting of ops
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("distprof: ")]
    assert all("stops recording, the job goes on" in line for line in said)


class InPatches(At):
    """Counts only lines that put a patch in place or remove it; ``places`` has all of them."""

    def __init__(self, line: int) -> None:
        super().__init__(line, signalled)
        self.places: list[int] = []

    def __call__(self, frame: FrameType, event: str, given: object) -> At | None:
        code = frame.f_code
        if not code.co_filename.endswith(PATCHES) or code.co_name not in OPEN_AND_CLOSE:
            return None
        if event == "line":
            self.places.append(frame.f_lineno)
        return super().__call__(frame, event, given)


PATCHES = ("hooks/module_calls.py", "hooks/patches.py", "hooks/replaced_attribute.py")
OPEN_AND_CLOSE = ("open", "close", "apply", "restore", "_swap_for_dynamo")


def test_no_line_of_a_patch_leaves_it_in_place(tmp_path: Path) -> None:
    """Dynamo's own reference to ``nn.Module.__call__`` is swapped beside the attribute: whichever line is interrupted,
    all is as before once the recorder has finished.
    """
    dynamo = importlib.import_module("torch._dynamo.utils")
    signal.signal(signal.SIGUSR1, handler)
    whole = InPatches(0)
    run(tmp_path / "whole", whole)
    first = {place: index + 1 for index, place in reversed([*enumerate(whole.places)])}
    last = {place: index + 1 for index, place in enumerate(whole.places)}
    assert len(first) > 20
    for line in sorted({*first.values(), *last.values()}):
        came, _ = run(tmp_path / str(line), InPatches(line))
        assert [type(one) for one in came] in ([], [Late]), f"at line {line}"  # some run after the last step
        assert dynamo.unpatched_nn_module_call is nn.Module.__call__, f"at line {line}"
