"""Tests of the tensors in nested values."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NoReturn

import pytest
import torch

from distprof.tensors.nested_tensors import call_tensors

ONE, OTHER = torch.zeros(1), torch.zeros(2)


class Odd(dict[str, Any]):
    """Raises when it is asked for its values."""

    def values(self) -> NoReturn:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((ONE,), [ONE]),
        (([ONE, None, OTHER],), [ONE, OTHER]),
        ((3, {"x": (OTHER, ONE)}), [OTHER, ONE]),
        (([[ONE]],), [ONE]),
        (([[[ONE]]],), []),  # too deep
        ((OrderedDict(ids=[1, 2, 3], x=ONE), OTHER), [ONE, OTHER]),
        ((Odd(x=ONE),), [ONE]),
        ((["a"] * 1_000, ONE), [ONE]),
        (({"texts": ["a"] * 1_000, "more": [list(range(9))] * 3, "x": ONE},), [ONE]),
        (([ONE] * 1_000,), [ONE] * 1_000),
        ((["a"] * 1_000 + [ONE],), []),  # after the items that are visited
    ],
)
def test_call_tensors(values: Any, found: list[torch.Tensor]) -> None:
    assert [id(tensor) for tensor in call_tensors(values, 2)] == [*map(id, found)]
