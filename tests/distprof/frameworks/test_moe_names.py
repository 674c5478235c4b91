"""What names say of MoE layers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import Tensor, nn

from distprof.frameworks.moe_names import may_drop


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Limited(nn.Module):
    def limit(self, x: Tensor, most: int) -> Tensor:
        capacity = min(most, len(x))
        return x[:capacity]


class Inherits(Limited):
    pass


def with_attribute(name: str, value: object) -> nn.Module:
    module = Plain()
    setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Plain(), False),
        (Limited(), True),
        (Inherits(), True),
        (with_attribute("expert_capacity", 8), True),
        (with_attribute("config", SimpleNamespace(capacity_factor=1.25)), True),
        (with_attribute("config", SimpleNamespace(capacity_factor=None)), False),
        (with_attribute("config", SimpleNamespace(moe_capacity_factor=1.0)), True),
    ],
    ids=["plain", "its code", "its base", "attribute", "config", "config without", "Megatron's config"],
)
def test_what_speaks_of_a_capacity_may_drop_tokens(module: nn.Module, expected: bool) -> None:
    assert may_drop(Plain(), module) is expected
