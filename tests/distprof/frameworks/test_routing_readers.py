"""Readers of routers' outputs and of experts' arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distprof.frameworks.deepspeed import _read_gate
from distprof.frameworks.moe_names import names_router, stated_top_k
from distprof.frameworks.routing_readers import (
    UnclearChoice,
    count_by_expert,
    read_arguments,
    read_choice,
    read_counts,
)
from distprof.native import extension

SCORES = torch.rand(3, 2)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-2, 9), max_size=60),
    st.sampled_from([torch.int64, torch.int32]),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_count_by_expert(both_ways: None, ids: list[int], dtype: torch.dtype, experts: int, step: int) -> None:
    found = count_by_expert(torch.tensor(ids, dtype=dtype)[::step], experts)
    assert found.dtype == torch.int64
    assert found.tolist() == [ids[::step].count(expert) for expert in range(experts)]


@pytest.mark.parametrize("dtype", [torch.int16, torch.int8, torch.uint8])
def test_small_ids_are_counted(both_ways: None, dtype: torch.dtype) -> None:
    ids = torch.tensor([[2, 0], [100, 2]], dtype=dtype)
    assert count_by_expert(ids, 4).tolist() == [1, 0, 2, 0]
    assert count_by_expert(ids[:0], 4).tolist() == [0, 0, 0, 0]


@pytest.mark.skipif(extension.compiled is None, reason="the compiled part could not be compiled")
@pytest.mark.parametrize("values", [(0, 1, 8, 4), (8, -1, 8, 4), (8, 1, 2, 4), (8, 1, 8, -1)])
def test_what_are_no_ids_is_refused(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no ids"):
        extension.compiled.count_ids(*values)


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
def test_read_choice(output: Any, tokens: list[int] | None) -> None:
    said = read_choice(output, 4)
    assert (said.routed.tolist() if said else None) == tokens
    if isinstance(output, tuple):
        handed = read_arguments((torch.rand(3, 8), *output), 4)
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

    assert read_choice(torch.tensor([[0, 1]]).as_subclass(Ids), 4) is None


def test_names_of_routers() -> None:
    class TopKRouter(nn.Module):
        pass

    assert names_router("anything", TopKRouter()) and names_router("gate", nn.Linear(1, 1))
    assert not names_router("gate_proj", nn.Linear(1, 1)) and not names_router("proj", nn.Identity())


def test_k_that_a_layer_states() -> None:
    class Top2Router(nn.Module):
        pass

    class Config:
        def __init__(self) -> None:
            self.num_experts_per_tok = 20

    layer = nn.Module()
    layer.config = Config()  # type: ignore[assignment]
    assert (stated_top_k(nn.Module()), stated_top_k(Top2Router()), stated_top_k(layer)) == (0, 2, 20)
    layer.top_k = 3  # type: ignore[assignment]
    assert stated_top_k(layer, Top2Router()) == 3


IDS = torch.tensor([[0, 1], [1, 2], [3, 0]])


@pytest.mark.parametrize(
    ("output", "top_k", "counts"),
    [
        (IDS.T.contiguous(), 2, [2, 2, 1, 1]),  # [k, tokens]
        (IDS.view(1, 3, 2), 2, [2, 2, 1, 1]),
        (IDS[:, 0], 1, [1, 1, 0, 1]),  # top-1 without a dimension for k
        (IDS[:, :1].T, 1, [1, 1, 0, 1]),
        (torch.arange(20).expand(5, 20), 20, None),  # more than the four experts
        ({"logits": torch.rand(3, 4), "ids": IDS}, 2, [2, 2, 1, 1]),
        ((torch.rand(4), torch.tensor([2, 2, 1, 1])), 0, [2, 2, 1, 1]),  # counts
        ((torch.rand(3, 4), [2, 2, 1, 1], torch.arange(6)), 2, [2, 2, 1, 1]),  # JetMoE: a list of counts
        (torch.arange(80).view(4, 20), 2, [20, 20, 20, 20]),  # each expert's tokens (expert choice)
        ((torch.rand(3, 4), torch.rand(3, 4)), 0, None),
    ],
)
def test_forms_of_a_choice(output: Any, top_k: int, counts: list[int] | None) -> None:
    said = read_choice(output, 4, top_k=top_k)
    assert (said.routed.tolist() if said else None) == counts


def test_twenty_experts_a_token() -> None:
    ids = torch.stack([torch.randperm(64)[:20] for _ in range(7)])
    said = read_choice((torch.rand(7, 64), ids), 64, top_k=20)
    assert said is not None and said.routed.tolist() == torch.bincount(ids.reshape(-1), minlength=64).tolist()


def test_masks() -> None:
    """Of three tokens with two choices each, one choice is dropped."""
    mask = torch.zeros(3, 4, dtype=torch.bool).scatter(1, IDS, True)
    mask[2, 0] = False
    for tensor in (mask, mask.long()):
        said = read_choice((torch.rand(3, 4), tensor), 4, top_k=2)
        assert said is not None and said.kept is not None
        assert (said.kept.tolist(), said.choices) == ([1, 2, 1, 1], 6)
    assert read_choice(mask.long(), 4) is None, "may be something else"
    assert read_choice(mask, 4, limited=True) is None, "may lack dropped choices of an unknown number"
    assert read_choice((torch.tensor([3, 1, 0, 2]), torch.rand(3, 4, 2)), 4, top_k=2, limited=True) is None, "likewise"


def test_scores_of_the_chosen_alone() -> None:
    scores = torch.zeros(3, 4).scatter(1, IDS, torch.rand(3, 2) + 1)
    said = read_choice((scores, torch.rand(3, 4)), 4, top_k=2)
    assert said is not None
    assert (said.routed.tolist(), said.choices, said.must_be_all) == ([2, 2, 1, 1], 6, True)


@pytest.mark.parametrize("beside", [torch.rand(3, 4) + 1, torch.rand(3, 2)], ids=["scores", "weights"])
def test_counts_that_are_floats(beside: Tensor) -> None:
    said = read_choice((beside, torch.tensor([2.0, 2, 1, 1])), 4, top_k=2)
    assert said is not None
    assert (said.routed.tolist(), said.choices, said.must_be_all) == ([2, 2, 1, 1], 6, True)


@pytest.mark.parametrize("other", [[2.0, 2, 1, 0], [1.5, 2.5, 1, 1], [0.0] * 4], ids=["few", "fractions", "zeros"])
def test_floats_that_are_no_counts(other: list[float]) -> None:
    """A mean of probabilities, or a bias, may have the shape of counts."""
    said = read_choice((torch.rand(3, 2), torch.tensor(other)), 4, top_k=2)
    assert said is not None and said.must_be_all and int(said.routed.sum()) != said.choices, "it is left out at the end"
    chosen = torch.zeros(3, 4).scatter(1, IDS, torch.rand(3, 2) + 1)
    found = read_choice((chosen, torch.tensor(other)), 4, top_k=2)
    assert found is not None and found.kept is not None
    assert (found.routed.tolist(), found.kept.tolist()) == ([2, 2, 1, 1], [2, 2, 1, 1])


def test_the_same_ids_are_counted_once() -> None:
    ids = IDS.clone()
    first = count_by_expert(ids, 4)
    assert count_by_expert(ids, 4) is first
    ids[0, 0] = 1
    assert count_by_expert(ids, 4).tolist() == [1, 3, 1, 1]
    with torch.inference_mode():
        assert count_by_expert(IDS.clone(), 4).tolist() == [2, 2, 1, 1]


class Tupled(NamedTuple):
    weights: Tensor
    ids: Tensor


@dataclass
class Decision:
    weights: Tensor
    ids: Tensor
    size: torch.Size


@pytest.mark.parametrize(
    "made", [Tupled(SCORES, IDS), Decision(SCORES, IDS, IDS.shape), {"weights": SCORES, "ids": IDS}]
)
def test_outputs_with_names(made: Any) -> None:
    """A router may return its choice in a structure of its own, and its experts may be given that beside the tokens."""
    said = read_choice(made, 4)
    assert said is not None and said.routed.tolist() == [2, 2, 1, 1]
    handed = read_arguments((torch.rand(3, 8), made), 4)
    assert handed is not None and handed.tolist() == [2, 2, 1, 1]


def test_a_shape_is_no_list_of_counts() -> None:
    assert read_choice((torch.rand(3, 4), torch.Size((2, 3, 4, 5))), 4) is None


def test_places_beside_ids_are_not_told_apart() -> None:
    """Routers with a capacity may return the ids of experts and the places in it, in any order."""
    for top_k in (0, 2):
        with pytest.raises(UnclearChoice):
            read_choice((torch.zeros_like(IDS), IDS, SCORES), 4, top_k=top_k)


@pytest.mark.parametrize("top_k", [0, 3])
def test_few_tokens_that_each_expert_chooses(top_k: int) -> None:
    """Each of four experts chooses three of twenty tokens: these are no ids of experts."""
    places = torch.tensor([[0, 7, 19], [1, 2, 3], [5, 4, 0], [0, 1, 2]])
    said = read_choice((torch.rand(4, 3), places), 4, top_k=top_k)
    assert said is not None and said.kept is not None and said.kept.tolist() == [3, 3, 3, 3]
    handed = read_arguments((torch.rand(20, 8), places), 4, top_k=top_k)
    assert handed is not None and handed.tolist() == [3, 3, 3, 3]
    said = read_choice(places % 4, 4, top_k=top_k)
    assert said is not None and said.routed.sum() == 12, "four tokens choose three experts each"
