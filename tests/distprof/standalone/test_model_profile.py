"""Tests of get_model_profile: numbers computed by hand, every kind of input, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from distprof import get_model_profile
from distprof.errors import UsageError


def counts(model: nn.Module, *shape: int, **options: Any) -> tuple[Any, ...]:
    """(flops, MACs, params)"""
    if shape:
        options["input_shape"] = shape
    return get_model_profile(model, **{"print_profile": False, "as_string": False, "warm_up": 0, **options})


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4, bias=False)

    def forward(self, *, x: Tensor, scale: float = 1.0) -> Tensor:
        y: Tensor = self.linear(x)
        return y * scale

    def twice(self, x: Tensor) -> Tensor:
        both: Tensor = self.linear(x) + self.linear(x)
        return both @ both.T

    def generate(self, x: Tensor, steps: int = 3) -> Tensor:
        for _ in range(steps):
            y = self(x=x)
        return y


def test_a_shape_stands_for_one_tensor() -> None:
    assert counts(nn.Linear(8, 4), 2, 8) == (2 * 64 + 8, 64, 36)


def test_strings_are_as_deepspeed_spells_them() -> None:
    model = nn.Linear(1000, 1000)
    assert get_model_profile(model, (1, 1000), print_profile=False) == ("2 M", "1 MMACs", "1 M")


def test_keywords_alone_are_an_input() -> None:
    assert counts(Keywords(), kwargs={"x": torch.ones(2, 8), "scale": 2.0}) == (2 * 64 + 8, 64, 32)


def test_positional_and_keyword_arguments_go_together() -> None:
    mha = nn.MultiheadAttention(8, 2, bias=False)
    x = torch.ones(3, 1, 8)
    assert counts(mha, args=[x, x, x], kwargs={"need_weights": False})[1] == 4 * 3 * 64 + 2 * 2 * 9 * 4


def test_generate_is_the_sum_of_its_steps() -> None:
    once = counts(Keywords(), kwargs={"x": torch.ones(2, 8)})
    assert counts(Keywords(), kwargs={"x": torch.ones(2, 8)}, mode="generate")[1] == 3 * once[1]


def test_any_method_may_be_named_and_what_it_does_itself_counts() -> None:
    x = torch.ones(2, 8)
    flops, macs, _ = counts(Keywords(), args=[x], func_name="twice")
    assert macs == 2 * 64 + 2 * 2 * 4
    assert flops == 2 * macs + 8


def test_an_unknown_mode_or_method_is_refused() -> None:
    with pytest.raises(UsageError, match="'sample'"):
        counts(nn.Linear(8, 4), 2, 8, mode="sample")
    with pytest.raises(UsageError, match="Linear has no method draw"):
        counts(nn.Linear(8, 4), 2, 8, func_name="draw")
    with pytest.raises(UsageError, match="no input"):
        counts(nn.Linear(8, 4))
    with pytest.raises(UsageError, match="input_shape is 8"):
        get_model_profile(nn.Linear(8, 4), 8)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"give a torch\.nn\.Module"):
        get_model_profile(len, (1,))  # type: ignore[arg-type]


def test_on_meta_work_is_counted_and_nothing_runs() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(100_000, 100_000), nn.ReLU())
    assert counts(model, 1, 100_000) == (2 * 10**10 + 2 * 10**5, 10**10, 10**10 + 10**5)


@pytest.mark.parametrize("inside", [True, False], ids=["called inside the mode", "called outside"])
def test_fakes_of_the_users_own_are_counted(inside: bool) -> None:
    mode = FakeTensorMode()
    with mode:
        model, x = nn.Linear(8, 4), torch.ones(2, 8)
        if inside:
            assert counts(model, 2, 8, warm_up=1) == (2 * 64 + 8, 64, 36)
    assert counts(model, args=[x]) == (2 * 64 + 8, 64, 36)


def test_fakes_of_other_code_are_not_counted() -> None:
    class Asks(nn.Module):
        """Infers a shape with fake tensors, as DTensor does, before it computes."""

        def forward(self, x: Tensor) -> Tensor:
            with FakeTensorMode() as mode:
                fake = mode.from_tensor(x)
                shape = (fake @ fake).shape
            assert shape == x.shape
            return x @ x

    assert counts(Asks(), args=[torch.ones(4, 4)])[1] == 64


def test_inference_mode_counts_the_same() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    with torch.inference_mode():
        inside = counts(encoder, 1, 4, 8)
    assert inside[1] == 4 * (4 * 64 + 2 * 128) + 2 * 2 * 16 * 4  # projections and both linears; scores and their values


def test_every_module_keeps_its_mode() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)))
    model.train()
    model[1].eval()
    seen: list[bool] = []
    model.register_forward_hook(lambda *_: seen.append(model[0].training))
    counts(model, 2, 4)
    assert [module.training for module in model.modules()] == [True, True, False, False, False]
    assert seen == [False]  # it was profiled in eval mode


def test_an_exception_of_the_model_passes_and_leaves_nothing() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("mine")

    model = nn.Sequential(nn.Linear(4, 4), Breaks()).train()
    for warm_up in (0, 1):
        with pytest.raises(ZeroDivisionError, match="mine"):
            counts(model, 2, 4, warm_up=warm_up)
    assert model.training and model[0].training


def test_warm_up_is_not_counted() -> None:
    assert counts(nn.Linear(8, 4), 2, 8, warm_up=5) == counts(nn.Linear(8, 4), 2, 8)


@pytest.mark.parametrize("ignored", [nn.Linear, nn.Sequential])
def test_ignored_modules_count_no_work_and_their_parameters_stay(ignored: type[nn.Module]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 2, 3)
            self.head = nn.Sequential(nn.Linear(6, 4), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.conv(x))
            return y

    flops, macs, params = counts(Net(), 1, 1, 8, ignore_modules=[ignored])
    conv = 2 * 6 * 3  # outputs x kernel
    relu = 8 if ignored is nn.Linear else 0
    assert (flops, macs, params) == (2 * conv + 12 + relu, conv, 8 + 28)
