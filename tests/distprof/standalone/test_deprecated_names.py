"""Tests of arguments of DeepSpeed's earlier releases: they work, warn, and are in no signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distprof import FlopsProfiler, get_model_profile
from distprof.errors import UsageError

profile: Callable[..., Any] = get_model_profile  # its type knows no older argument


def older(name: str) -> Any:
    return pytest.warns(DeprecationWarning, match=f"^{name} is an older spelling")


class Doubles(nn.Module):
    """The second forward takes twice the rows of the first, and so on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4, bias=False)
        self.rows = 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.expand(self.rows, 8))
        self.rows *= 2
        return y


def test_input_res_and_as_strings() -> None:
    with older("input_res"), older("as_strings"):
        assert profile(nn.Linear(8, 4), input_res=(2, 8), as_strings=False, print_profile=False) == (136, 64, 36)


def test_the_warning_points_at_the_caller() -> None:
    with older("input_res") as caught:
        profile(nn.Linear(8, 4), input_res=(2, 8), print_profile=False)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "made", [lambda shape: {"input": torch.ones(shape)}, lambda shape: (torch.ones(shape),), torch.ones],
    ids=["keywords", "positions", "a tensor"],
)  # fmt: skip
def test_an_input_constructor_makes_the_input_from_the_shape(made: Callable[..., Any]) -> None:
    with older("input_constructor"):
        counted = profile(nn.Linear(8, 4), (2, 8), input_constructor=made, as_string=False, print_profile=False)
    assert counted == (136, 64, 36)


def test_the_aggregated_profile_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with older("print_aggregated_profile"):
        profile(nn.Linear(8, 4), (2, 8), print_aggregated_profile=False)
    text = capsys.readouterr().out
    assert "Detailed Profile" in text and "Aggregated Profile" not in text


def test_in_str() -> None:
    model = nn.Linear(8, 4)
    profiler: Any = FlopsProfiler(model)
    profiler.start_profile()
    model(torch.ones(2, 8))
    for total, text in (("flops", "136"), ("macs", "64 MACs"), ("params", "36")):
        with older("in_str"):
            assert getattr(profiler, f"get_total_{total}")(in_str=True) == text
    with older("in_str"):
        assert profiler.get_total_duration(in_str=True).endswith("s")
    profiler.end_profile()


def test_start_and_end_step_average_over_the_calls(capsys: pytest.CaptureFixture[str]) -> None:
    with older("start_step"), older("end_step"):
        flops, macs, params = profile(Doubles(), (1, 8), start_step=1, end_step=4, as_string=False)
    assert macs == round((2 + 4 + 8) * 32 / 3)  # the first call was a warm-up
    assert (flops, params) == (round(2 * (2 + 4 + 8) * 32 / 3), 32)
    text = capsys.readouterr().out
    assert "Profile Summary at step 1-3:" in text
    assert text.splitlines()[-1].split() == ["Number", "of", "steps", "profiled:", "3"]


def test_profiler_with_steps_averages_forwards(capsys: pytest.CaptureFixture[str]) -> None:
    model = Doubles()
    make: Any = FlopsProfiler
    with older("start_step"), older("end_step"):
        profiler = make(model, start_step=2, end_step=4)
    for step in range(6):
        if step == 2:
            profiler.start_profile()
        if step == 4:
            assert profiler.get_total_macs() == (4 + 8) * 32 // 2
            assert profiler.get_total_steps() == 2
            profiler.print_model_profile()
            profiler.end_profile()
        model(torch.ones(1, 8))
    text = capsys.readouterr().out
    assert "Profile Summary at step 2-3:" in text
    assert text.splitlines()[-1].split()[-1] == "2"


def test_num_steps_follow_the_warm_up() -> None:
    with older("num_steps"):
        _, macs, _ = profile(Doubles(), (1, 8), warm_up=2, num_steps=2, as_string=False, print_profile=False)
    assert macs == (4 + 8) * 32 // 2


def test_steps_that_hold_none_are_refused() -> None:
    with older("start_step"), older("end_step"), pytest.raises(UsageError, match="hold no step"):
        profile(nn.Linear(8, 4), (2, 8), start_step=3, end_step=3)


def test_both_names_at_once_are_refused() -> None:
    with older("input_res"), pytest.raises(UsageError, match="older name of input_shape"):
        profile(nn.Linear(8, 4), input_shape=(2, 8), input_res=(2, 8))


def test_a_name_that_never_was_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="input_size"):
        profile(nn.Linear(8, 4), input_size=(2, 8))


def test_older_names_are_in_no_signature() -> None:
    for function in (get_model_profile, FlopsProfiler, FlopsProfiler.print_model_profile, FlopsProfiler.get_total_macs):
        kinds = {one.kind for one in inspect.signature(function).parameters.values()}
        assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
