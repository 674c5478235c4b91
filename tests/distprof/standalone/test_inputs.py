"""Tests of a model's inputs: the obvious meaning, or one clear error message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distprof import get_model_profile
from distprof.errors import UsageError


class Pair(nn.Module):
    def forward(self, one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> Tensor:
        return one["x"] @ two["x"]


def macs(model: nn.Module | None = None, **given: Any) -> Any:
    return get_model_profile(model or nn.Linear(8, 4), print_profile=False, as_string=False, **given)[1]


@pytest.mark.parametrize(
    "given",
    [
        {"args": torch.ones(2, 8)},
        {"input_shape": tuple(np.array([2, 8]))},
        {"input_shape": np.array([2, 8])},
        {"input_shape": [2, 8]},
        {"input_shape": torch.Size([2, 8])},
        {"args": None, "input_shape": (2, 8)},
    ],
)
def test_obvious_inputs_are_accepted(given: dict[str, Any]) -> None:
    assert macs(**given) == 64


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"input_shape": torch.ones(2, 8)}, r"input_shape is a tensor: give its sizes, \(2, 8\), or the tensor itself"),
        ({"input_shape": (2, 8), "args": [torch.ones(2, 8)]}, "input_shape and args are both given"),
        ({"input_shape": (-1, 8)}, r"input_shape is \(-1, 8\): give the sizes"),
        ({"input_shape": (True, 8)}, "give the sizes of one tensor"),
        ({"input_shape": ((2, 8), (2, 8))}, "give the sizes of one tensor"),
        ({"args": {"input": torch.ones(2, 8)}}, "args is a dict: give it as kwargs"),
        ({"args": np.ones((2, 8))}, "args is a ndarray: give a list"),
        ({"kwargs": torch.ones(2, 8)}, "kwargs is a Tensor: give it as args"),
        ({"kwargs": 3}, "kwargs is a int: give a dict"),
        ({}, "the model gets no input"),
    ],
)
def test_wrong_inputs_are_explained_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        macs(**given)


@pytest.mark.filterwarnings("ignore:input_constructor:DeprecationWarning")
def test_two_dicts_are_arguments_where_the_model_takes_two() -> None:
    def two(shape: tuple[int, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"x": torch.ones(shape)}, {"x": torch.ones(shape).T}

    assert macs(Pair(), input_shape=(2, 8), input_constructor=two) == 2 * 2 * 8
    with pytest.raises(UsageError, match=r"returned a dict and a dict, which Linear\.forward does not take"):
        macs(input_shape=(2, 8), input_constructor=two)


def test_a_model_of_ids_says_so() -> None:
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 4))
    with pytest.raises(UsageError, match=r"takes ids.* args=\[torch\.zeros\(\(2, 8\), dtype=torch\.long\)\]"):
        macs(model, input_shape=(2, 8))
    assert macs(model, args=torch.zeros((2, 8), dtype=torch.long)) == 2 * 8 * 32
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):  # the model's own words
        macs(input_shape=(2, 7))
