"""Readers of routers' outputs and of experts' arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distprof.frameworks.deepspeed import _read_gate
from distprof.frameworks.routing_readers import (
    count_by_expert,
    is_router,
    read_chosen_ids,
    read_counts,
    read_dispatched_ids,
)

SCORES = torch.rand(3, 2)


def test_count_by_expert() -> None:
    ids = torch.tensor([[0, 2], [2, -1], [4, 2]], dtype=torch.int32)
    assert count_by_expert(ids, 4).tolist() == [1, 0, 3, 0]
    assert count_by_expert(ids[:0], 4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("output", "tokens"),
    [
        (torch.tensor([[0, 1], [1, 3]]), [1, 2, 0, 1]),
        ((torch.rand(3, 4), SCORES, torch.tensor([[0, 1], [1, 2], [3, 0]])), [2, 2, 1, 1]),  # transformers
        ((SCORES, torch.tensor([[[0], [1]], [[1], [1]]])), [1, 3, 0, 0]),  # torchtitan: [batch, length, k]
        ((SCORES, torch.zeros(5, dtype=torch.int64)), None),  # counts, or something else of one dimension
        ((SCORES, torch.zeros(2, 5, dtype=torch.int64)), None),  # more than there are experts
        ((SCORES, torch.zeros(2, 2)), None),
        (None, None),
        ({"ids": 1}, None),
    ],
)
def test_read_chosen_ids(output: Any, tokens: list[int] | None) -> None:
    said = read_chosen_ids(output, 4)
    assert (said.routed.tolist() if said else None) == tokens
    if isinstance(output, tuple):
        handed = read_dispatched_ids((torch.rand(3, 8), *output), 4)
        assert (None if handed is None else handed.tolist()) == tokens


def test_both_forms_of_deepspeed_gates() -> None:
    """Four tokens choose two of three experts each; two choices are dropped."""
    routes = torch.tensor([[0, 0, -1, 1], [1, 2, 2, -1]], dtype=torch.int32)
    counts, loss = torch.tensor([3, 2, 3]), torch.tensor(1.5, requires_grad=True)
    of_routes = (loss, torch.tensor(2), 3, routes, torch.zeros(2, 4), torch.rand(2, 4), counts)
    mask = torch.zeros(4, 3, 2, dtype=torch.bool)
    for token, (expert, place) in enumerate([(0, 0), (0, 1), (2, 1), (1, 0)]):
        mask[token, expert, place] = True
    mask[0, 1, 1] = mask[1, 2, 0] = True
    for output in (of_routes, (loss, mask.float(), mask, counts)):
        said = _read_gate(output, 3)
        assert said is not None and said.kept is not None
        assert (said.routed.tolist(), said.kept.tolist(), said.aux_loss) == ([3, 2, 3], [2, 2, 2], loss)
    assert _read_gate((loss, mask), 3) is None


def test_read_counts() -> None:
    assert read_counts((torch.rand(9, 2), torch.tensor([4, 5])), 2).tolist() == [4, 5]  # type: ignore[union-attr]
    assert read_counts((torch.rand(9, 2), torch.tensor([4.0, 5.0])), 2).tolist() == [4, 5]  # type: ignore[union-attr]
    assert read_counts((torch.rand(9, 2), torch.tensor([4, 5, 6])), 2) is None


def test_other_tensors_are_not_read() -> None:
    class Ids(Tensor):
        pass

    assert read_chosen_ids(torch.tensor([[0, 1]]).as_subclass(Ids), 4) is None


def test_is_router() -> None:
    class TopKRouter(nn.Module):
        pass

    assert is_router("anything", TopKRouter()) and is_router("gate", nn.Identity())
    assert not is_router("gate", nn.Linear(1, 1)) and not is_router("proj", nn.Identity())
