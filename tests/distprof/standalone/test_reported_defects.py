"""What users reported of DeepSpeed's flops profiler stays right here: each model by the number that pencil and paper
gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import linear  # captured before any profile starts

from distprof import FlopsProfiler, get_model_profile


class Computes(nn.Module):
    """A module that is one function of its input."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def work(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[int, int]:
    """(MACs, flops) of one call."""
    model = function if isinstance(function, nn.Module) else Computes(function)
    flops, macs, _ = get_model_profile(
        model, args=args, print_profile=False, as_string=False, **{"warm_up": 0, **options}
    )
    return int(macs), int(flops)


def ones(*shape: int) -> Tensor:
    return torch.ones(shape)


def test_functions_captured_before_the_start_are_counted() -> None:
    assert work(linear, ones(2, 8), ones(4, 8)) == (64, 128)


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (torch.dot, ((8,), (8,)), 8),
        (torch.mv, ((4, 8), (8,)), 32),
        (torch.matmul, ((8,), (8,)), 8),
        (torch.matmul, ((4, 8), (8,)), 32),
        (torch.matmul, ((8,), (8, 4)), 32),
        (lambda a, b: a @ b, ((8,), (8, 4)), 32),
        (torch.matmul, ((2, 3, 4, 8), (8,)), 2 * 3 * 4 * 8),
        (torch.vdot, ((8,), (8,)), 8),
    ],
)  # fmt: skip
def test_products_with_vectors(function: Callable[..., Any], shapes: tuple[tuple[int, ...], ...], macs: int) -> None:
    assert work(function, *(ones(*shape) for shape in shapes))[0] == macs


def test_an_outer_product_accumulates_nothing() -> None:
    assert work(torch.outer, ones(3), ones(5)) == (0, 15)


@pytest.mark.parametrize(
    ("one", "other", "macs"),
    [
        ((5, 1, 2, 8), (3, 8, 4), 5 * 3 * 2 * 8 * 4),
        ((2, 8), (7, 8, 4), 7 * 2 * 8 * 4),
        ((7, 2, 8), (8, 4), 7 * 2 * 8 * 4),
        ((1, 2, 8), (6, 8, 4), 6 * 2 * 8 * 4),
    ],
)
def test_matmul_broadcasts(one: tuple[int, ...], other: tuple[int, ...], macs: int) -> None:
    assert work(torch.matmul, ones(*one), ones(*other)) == (macs, 2 * macs)


@pytest.mark.parametrize("with_gradient", [True, False])
def test_attention_may_be_given_by_keywords(with_gradient: bool) -> None:
    q, k, v = (torch.randn(1, 12, 64, 64, requires_grad=with_gradient) for _ in range(3))
    by_position = work(F.scaled_dot_product_attention, q, k, v)
    by_name = work(lambda q: F.scaled_dot_product_attention(query=q, key=k, value=v, is_causal=True), q)
    assert by_position[0] == by_name[0] == 2 * 12 * 64 * 64 * 64 * 2 // 2


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("ij,jk->ik", ((2, 8), (8, 4)), 64),
        ("bhqd,bhkd->bhqk", ((2, 3, 5, 8), (2, 3, 7, 8)), 2 * 3 * 5 * 7 * 8),
        ("bij,bjk->ik", ((6, 2, 8), (6, 8, 4)), 6 * 2 * 8 * 4),
    ],
)
def test_einsum(equation: str, shapes: tuple[tuple[int, ...], ...], macs: int) -> None:
    assert work(lambda *tensors: torch.einsum(equation, *tensors), *(ones(*shape) for shape in shapes))[0] == macs


def test_interpolation_to_a_size() -> None:
    x = ones(1, 3, 8, 8)
    bilinear: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
    to_size = work(lambda x: F.interpolate(x, size=(16, 16), **bilinear), x)
    by_factor = work(lambda x: F.interpolate(x, scale_factor=2, **bilinear), x)
    assert to_size == by_factor == (0, 3 * 16 * 16 * 7)  # 4 products and their sum
    assert work(lambda x: F.interpolate(x, size=16), x) == (0, 0)  # nearest: picks


def test_an_exception_inside_leaves_the_next_profile_right() -> None:
    def breaks(x: Tensor) -> Tensor:
        F.relu(x)
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        work(breaks, ones(2, 8))
    assert work(nn.Linear(8, 4), ones(2, 8)) == (64, 136)


def test_starting_twice_counts_once() -> None:
    model = nn.Linear(8, 4)
    profiler = FlopsProfiler(model)
    seen = []
    for _ in range(3):
        profiler.start_profile()
        model(ones(2, 8))
        profiler.stop_profile()
        seen.append(profiler.get_total_flops())
    profiler.end_profile()
    assert seen == [136, 136, 136]


def test_ignored_modules_are_ignored() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Conv1d(1, 1, 3))
    assert work(model, ones(1, 8), ignore_modules=[nn.Linear])[0] == 2 * 3
    assert work(model, ones(1, 8), ignore_modules=[nn.Linear, nn.Conv1d]) == (0, 0)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 100])
def test_a_module_depth_beyond_the_model_shows_all_of_it(depth: int, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 4)))
    get_model_profile(model, (2, 8), module_depth=depth)
    text = capsys.readouterr().out
    assert [f"depth {level}:" in text for level in range(4)] == [level <= min(depth, 2) for level in range(4)]


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Conv2d(3, 6, 3), (3, 8, 8), 6 * 6 * 6 * 27),
        (nn.Conv1d(3, 6, 3), (3, 8), 6 * 6 * 9),
        (nn.Conv3d(1, 2, 3), (1, 4, 4, 4), 2 * 8 * 27),
        (nn.ConvTranspose2d(3, 6, 3), (3, 8, 8), 8 * 8 * 3 * 6 * 9),
        (nn.Conv2d(4, 4, 3, groups=4, padding="same"), (4, 8, 8), 4 * 64 * 9),
    ],
    ids=["2d", "1d", "3d", "transposed", "depthwise"],
)
def test_convolution_without_a_batch(model: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert work(model, ones(*shape))[0] == work(model, ones(1, *shape))[0] == macs


def test_inputs_by_keyword_alone() -> None:
    model = Computes(lambda *, x: x @ x)
    flops, macs, _ = get_model_profile(model, kwargs={"x": ones(4, 4)}, print_profile=False, as_string=False)
    assert (macs, flops) == (64, 128)


def test_shared_module_counts_calls_and_parameters_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8, bias=False)
            self.again = self.first
            self.looped = nn.Linear(8, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.again(self.first(x))
            for _ in range(3):
                x = self.looped(x)
            return x

    assert get_model_profile(Net(), (1, 8), as_string=False) == (10 * 64, 5 * 64, 128)
    text = capsys.readouterr().out
    assert "(looped): Linear(64 = 50% Params, 192 MACs = 60% MACs" in text
    assert "3 calls, in_features=8" in text


def test_names_of_ours_are_free_on_the_users_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flops = nn.Linear(8, 4, bias=False)
            self.macs, self.params, self.duration = 1, "mine", None

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.flops(x)
            return y

    model = Net()
    assert work(model, ones(2, 8)) == (64, 128)
    assert isinstance(model.flops, nn.Linear)
    assert (model.macs, model.params, model.duration) == (1, "mine", None)


def test_a_model_of_no_work_divides_nothing_by_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert get_model_profile(nn.Identity(), (2, 8)) == ("0", "0 MACs", "0")
    assert "Identity(0 = 0% Params, 0 MACs = 0% MACs" in capsys.readouterr().out
