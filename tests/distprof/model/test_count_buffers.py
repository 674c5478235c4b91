"""Buffers in which a layer counts the tokens of its experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distprof.model.count_buffers import count_buffer, is_compiled


class Subclass(Tensor):
    """Stands for a DTensor, which may hold counts of other ranks."""


def layer(counts: Tensor, name: str = "tokens_per_expert_E") -> nn.Sequential:
    made = nn.Sequential(nn.Linear(2, 4))
    made[0].register_buffer(name, counts)
    return made


def test_a_buffer_of_the_layer_is_read_without_keeping_it_alive() -> None:
    made = layer(torch.arange(4))
    read = count_buffer(made, 4)
    assert read is not None
    made[0].register_buffer("tokens_per_expert_E", torch.ones(4))
    found = read()
    assert found is not None and found.tolist() == [1, 1, 1, 1], "the one that the layer has now"
    del made
    assert read() is None


@pytest.mark.parametrize(
    ("counts", "name"), [(torch.zeros(3), "tokens_per_expert"), (torch.zeros(4), "expert_bias")], ids=["shape", "name"]
)
def test_other_buffers_are_not_read(counts: Tensor, name: str) -> None:
    assert count_buffer(layer(counts, name), 4) is None


def test_a_tensor_of_another_class_is_not_read() -> None:
    made = layer(torch.zeros(4).as_subclass(Subclass))
    read = count_buffer(made, 4)
    assert read is not None and read() is None


def test_compiled_modules() -> None:
    plain, in_place = nn.Linear(2, 2), nn.Linear(2, 2)
    in_place.compile(backend="eager")
    wrapped: Any = torch.compile(plain, backend="eager")
    assert [is_compiled(one) for one in (plain, in_place, wrapped)] == [False, True, True]
