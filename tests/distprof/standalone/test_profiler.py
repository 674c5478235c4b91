"""Tests of FlopsProfiler in a user's loop: it measures from start to stop, and leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import html
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from distprof import FlopsProfiler
from distprof.errors import UsageError

X = torch.ones(2, 8)
ONCE = 64  # MACs of one forward


def linear() -> nn.Linear:
    return nn.Linear(8, 4, bias=False)


@contextmanager
def profiled(model: nn.Module) -> Iterator[FlopsProfiler]:
    """A started profiler, which is ended after the test."""
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    yield profiler
    profiler.end_profile()


def test_the_example_of_deepspeeds_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    profiler = FlopsProfiler(model)
    for step in range(4):
        if step == 2:
            profiler.start_profile()
        loss = model(X).sum()
        if step == 2:
            assert profiler.get_total_flops() == 2 * ONCE
            assert profiler.get_total_macs(as_string=True) == "64 MACs"
            assert profiler.get_total_params(as_string=True) == "32"
            assert 0 < float(profiler.get_total_duration()) < 10
            profiler.print_model_profile(profile_step=step)
            profiler.end_profile()
        loss.backward()
        optimizer.step()
    text = capsys.readouterr().out
    assert "Profile Summary at step 2:" in text
    assert text.count("Profile Summary") == 1


def test_forwards_add_up_and_may_be_asked_for_in_between() -> None:
    model = linear()
    with profiled(model) as profiler:
        for forwards in (1, 2, 3):
            model(X)
            assert profiler.get_total_macs() == forwards * ONCE
            assert profiler.get_total_steps() == forwards
        longer = float(profiler.get_total_duration())
        profiler.stop_profile()
        model(X)
        assert profiler.get_total_macs() == 3 * ONCE  # stopped
        assert float(profiler.get_total_duration()) == longer


def test_time_is_there_once_however_often_it_is_asked_for() -> None:
    model = linear()
    with profiled(model) as profiler:
        model(X)
        assert len({float(profiler.get_total_duration()) for _ in range(3)}) == 1


def test_backward_in_between_is_counted_beside(tmp_path: Path) -> None:
    model = nn.Sequential(linear(), nn.Linear(4, 4, bias=False))
    with profiled(model) as profiler:
        loss = model(X).sum()
        assert profiler.get_total_macs() == 64 + 32  # asking in between must not tear the step apart
        loss.backward()
        profiler.stop_profile()
        assert profiler.get_total_macs() == 64 + 32
        profiler.print_model_profile(output_file=str(tmp_path / "new" / "profile.txt"))
    text = (tmp_path / "new" / "profile.txt").read_text()
    assert line(text, "bwd MACs per rank") == "128 MACs"  # the first layer's input needs no gradient
    assert line(text, "bwd latency") != "n/a"


def test_reset_forgets_and_goes_on() -> None:
    model = linear()
    with profiled(model) as profiler:
        model(X)
        profiler.reset_profile()
        assert profiler.get_total_macs() == 0
        model(X)
        assert profiler.get_total_macs() == ONCE
        profiler.stop_profile()
        profiler.reset_profile()
        model(X)
        assert profiler.get_total_macs() == 0  # it was stopped, and stays so


def test_a_second_start_begins_anew_and_leaves_nothing_behind() -> None:
    model = linear()
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    model(X)
    profiler.start_profile()
    model(X)
    assert profiler.get_total_macs() == ONCE
    profiler.end_profile()
    profiler.end_profile()


def test_a_profiler_that_goes_leaves_nothing_behind() -> None:
    """The profiler is deleted with the frame when an exception leaves the user's loop."""
    before = nn.Module.__call__

    def loop(model: nn.Module) -> None:
        profiler = FlopsProfiler(model)
        profiler.start_profile()
        model(X)
        raise KeyError("batch")

    with pytest.raises(KeyError):
        loop(linear())
    gc.collect()
    assert nn.Module.__call__ is before


def test_an_exception_that_is_caught_does_not_end_the_profile() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    model = nn.Sequential(linear(), Breaks())
    with profiled(model) as profiler:
        for _ in range(2):
            with pytest.raises(ValueError):
                model(X)
        assert profiler.get_total_macs() == 2 * ONCE


def test_calls_out_of_order_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    profiler = FlopsProfiler(linear())
    with pytest.raises(UsageError, match="start_profile"):
        profiler.get_total_flops()
    profiler.print_model_profile()
    profiler.print_model_aggregated_profile()
    profiler.stop_profile()
    profiler.end_profile()
    assert capsys.readouterr().out == ""


def test_the_aggregated_profile_alone(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(linear(), nn.ReLU())
    with profiled(model) as profiler:
        model(X)
        profiler.print_model_aggregated_profile(module_depth=1, top_modules=1)
    text = capsys.readouterr().out
    assert "MACs        - {'Linear': '64 MACs'}" in text and "Detailed Profile" not in text


def test_a_profile_of_nothing_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    with profiled(linear()) as profiler:
        profiler.print_model_profile()
        assert profiler.get_total_flops() == 0
    assert line(capsys.readouterr().out, "params per rank") == "32"


def test_only_the_models_own_calls_are_seen() -> None:
    model, other = linear(), linear()
    with profiled(model) as profiler:
        other(X)
        nn.Sequential(nn.Sequential(nn.Linear(8, 8)), model)(X)
        assert profiler.get_total_macs() == ONCE


def test_the_model_is_as_it_was_while_it_is_profiled() -> None:
    model = nn.Sequential(linear(), nn.Dropout())
    model.train()
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    with profiled(model):
        model(X)
        assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        twin = copy.deepcopy(model)
        assert all(module.training for module in (*model.modules(), *twin.modules()))


def test_the_model_is_not_kept_alive_by_what_was_measured() -> None:
    model = linear()
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    model(X)
    gone = weakref.ref(model)
    profiler.end_profile()
    del model, profiler
    gc.collect()
    assert gone() is None


def test_times_of_what_did_not_run_are_not_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeTensorMode():
        model = linear()
        with profiled(model) as profiler:
            model(torch.ones(2, 8))
            assert math.isnan(float(profiler.get_total_duration()))
            assert profiler.get_total_duration(as_string=True) == "n/a"
            profiler.print_model_profile()
    text = capsys.readouterr().out
    assert line(text, "fwd latency") == "n/a"
    assert line(text, "batch size per rank") == "2"
    assert line(text, "fwd MACs per rank") == "64 MACs"


def test_parameters_without_a_shape_are_refused() -> None:
    model = nn.LazyLinear(4)
    profiler = FlopsProfiler(model)
    with pytest.raises(UsageError, match="call it once"):
        profiler.start_profile()
    model(X)
    profiler.start_profile()
    model(X)
    assert profiler.get_total_macs() == ONCE
    profiler.end_profile()


def test_gradient_accumulation_and_the_optimizer(tmp_path: Path) -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with profiled(model) as profiler:
        for _ in range(4):
            model(X).sum().backward()
        optimizer.step()
        profiler.print_model_profile(output_file=str(tmp_path / "profile.txt"))
    text = (tmp_path / "profile.txt").read_text()
    assert line(text, "micro-batches per iteration") == "4"
    assert line(text, "bwd MACs per rank") == "256 MACs"
    assert line(text, "step latency") != "n/a"


def line(text: str, label: str) -> str:
    """Returns the value of one line of the summary."""
    (found,) = [row for row in text.splitlines() if row.startswith(f"{label}:")]
    return found.partition(":")[2].strip()


def test_it_shows_its_totals_and_its_report() -> None:
    profiler = FlopsProfiler(linear())
    assert repr(profiler) == "<FlopsProfiler of Linear: no profile, start_profile() starts one>"
    assert profiler._repr_html_() is None
    profiler.start_profile()
    profiler.model(X)
    profiler.model(X)
    assert repr(profiler) == "<FlopsProfiler of Linear: it runs>"
    profiler.stop_profile()
    assert repr(profiler).startswith("<FlopsProfiler of Linear: 2 forwards, 32 parameters, 128 MACs in forward, ")
    assert profiler.report().table("modules").rows()[0]["macs"] == 2 * ONCE
    assert profiler._repr_html_() == f"<pre>{html.escape(str(profiler.report()))}</pre>"
    profiler.end_profile()
