"""Tests of the micro-batches, batch size and samples of an iteration."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from distprof.model.batch_order import BatchOrder
from distprof.probes.batch import (
    BATCH_FIRST,
    BATCH_SECOND,
    DIFFERENT_IN_CLOSURES,
    ONE_IN_CLOSURES,
    SHARED_OR_NOT,
    UNKNOWN_ORDER,
    VIEWS,
    BatchTally,
    Work,
    first_tensor,
)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (torch.zeros(8, 3), 8),
        ((torch.zeros(8, 3), torch.zeros(5)), 8),
        ((None, "text", torch.zeros(4)), 4),
        ({"input_ids": torch.zeros(6, 10, dtype=torch.long)}, 6),
        (OrderedDict(mask=None, x=[torch.zeros(7, 2)]), 7),
        ((torch.tensor(1.0), torch.zeros(9, 1)), 9),  # a scalar has no batch
        ((), None),
        ((3, "text"), None),
        (torch.zeros(0, 3), 0),
        ([[[[torch.zeros(2)]]]], None),  # too deep to be a batch
    ],
)
def test_batch_size_is_dimension_0_of_the_first_tensor(given: Any, size: int | None) -> None:
    found = first_tensor(given if isinstance(given, tuple) else (given,), {})
    assert (None if found is None else len(found)) == size


def test_one_model_one_micro_batch() -> None:
    tally = BatchTally()
    tally.forward(0, (torch.zeros(8, 3),), {})
    tally.backward()
    assert tally.work()[:3] == (1, 8, 8)


IDS = torch.zeros(8, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        ((IDS,), 40),
        (({"attention_mask": None, "input_ids": IDS.int()},), 40),
        ((IDS, torch.zeros(8, 5)), 40),
        ((torch.zeros(8, 5),), 0),  # features
        ((torch.zeros(8, dtype=torch.long),), 0),  # classes
        ((torch.zeros(8, 3, 4, dtype=torch.long),), 0),
        ((torch.zeros(8, 5), IDS), 0),  # the batch is the first tensor
    ],
)
def test_tokens_are_the_ids_of_the_batch(given: tuple[Any, ...], tokens: int) -> None:
    tally = BatchTally()
    for _ in range(3):
        tally.forward(0, given, {})
        tally.backward()
    assert tally.work().tokens == 3 * tokens


def test_tokens_of_views_count_once() -> None:
    tally = BatchTally()
    tally.loads = 1
    for _ in range(4):
        tally.forward(0, (IDS,), {})
    tally.backward()
    assert tally.work() == Work(1, 8, 8, BATCH_FIRST + VIEWS, 40)


def test_micro_batches_add_up_also_when_the_last_is_smaller() -> None:
    tally = BatchTally()
    for size in (8, 8, 8, 4):
        tally.forward(0, (torch.zeros(size, 3),), {})
        tally.backward()
    assert tally.work()[:3] == (4, 8, 28)


def test_a_batch_given_by_keyword() -> None:
    tally = BatchTally()
    tally.forward(0, (), {"x": torch.zeros(8, 3)})
    assert tally.work()[:3] == (1, 8, 8)
    behind_others = BatchTally()
    behind_others.forward(0, (None, 1), {"x": torch.zeros(8, 3)})
    assert behind_others.work().samples == 8


def test_a_gans_batch_is_its_generators() -> None:
    """The discriminator gets real and fake data, and fake again: three calls, two backward passes, one batch."""
    tally = BatchTally()
    generator, discriminator = 0, 10
    tally.forward(generator, (torch.zeros(16, 4),), {})
    for _ in range(2):
        tally.forward(discriminator, (torch.zeros(16, 9),), {})
    tally.backward()
    tally.forward(discriminator, (torch.zeros(16, 9),), {})
    tally.backward()
    assert tally.work()[:3] == (1, 16, 16)


def test_two_views_of_a_batch_are_one_micro_batch() -> None:
    """Contrastive learning: two forwards, one backward."""
    tally = BatchTally()
    tally.loads += 1
    for _ in range(2):
        tally.forward(0, (torch.zeros(32, 4),), {})
    tally.backward()
    assert tally.work()[:4] == (1, 32, 32, BATCH_FIRST + VIEWS)


@pytest.mark.parametrize("loads", [0, 2])
def test_forwards_that_share_a_backward_may_share_a_batch_or_not(loads: int) -> None:
    """Views of one batch, an episode's steps, or batches whose losses are summed."""
    tally = BatchTally()
    tally.loads += loads
    for _ in range(2):
        tally.forward(0, (torch.zeros(32, 4),), {})
    tally.backward()
    assert tally.work()[:4] == (1, 0, 0, SHARED_OR_NOT)


def in_closures(*batches: torch.Tensor, before: int = 0) -> tuple[Any, ...]:
    """Counts an optimizer step whose closure gets these sizes, after some micro-batches of 4."""
    tally = BatchTally()
    for _ in range(before):
        tally.forward(0, (torch.zeros(4, 1),), {})
        tally.backward()
    tally.updating += 1
    for batch in batches:
        tally.forward(0, (batch,), {})
        tally.backward()
    tally.updating -= 1
    return tally.work()[:4]


def test_repeated_closure_works_on_one_batch() -> None:
    """LBFGS."""
    batch = torch.zeros(20, 3)
    assert in_closures(batch) == (1, 20, 20, BATCH_FIRST)
    assert in_closures(*[batch] * 5) == (5, 20, 20, BATCH_FIRST + ONE_IN_CLOSURES)


def test_closure_with_new_tensors_has_unknown_batches() -> None:
    assert in_closures(torch.zeros(20, 3), torch.zeros(20, 3)) == (2, 0, 0, DIFFERENT_IN_CLOSURES)
    batch = torch.zeros(20, 3)
    assert in_closures(batch, batch, before=1) == (3, 0, 0, DIFFERENT_IN_CLOSURES)


def test_a_closure_for_the_last_micro_batch() -> None:
    """As in Lightning, which runs each step in a closure."""
    assert in_closures(torch.zeros(4, 1), before=3) == (4, 4, 16, BATCH_FIRST)


def test_sequences_first() -> None:
    """Once the model was seen to pass sequences first to its modules."""
    order = BatchOrder()
    order.add_model(0, nn.Sequential(nn.Embedding(10, 4), nn.LSTM(4, 4)))
    order.add_model(7, nn.Sequential(nn.LSTM(4, 4, batch_first=True)))

    def work(root: int) -> tuple[Any, ...]:
        tally = BatchTally(order)
        tally.forward(root, (torch.zeros(35, 20, dtype=torch.long),), {})
        return tally.work()[:4]

    assert (work(0), work(7)) == ((1, 0, 0, UNKNOWN_ORDER), (1, 35, 35, BATCH_FIRST))
    order.observe(0, torch.Size([35, 20]), torch.Size([35, 20, 4]))
    assert work(0) == (1, 20, 20, BATCH_SECOND)
    order.observe(0, torch.Size([35, 20]), torch.Size([20, 35, 4]))
    assert work(0) == (1, 35, 35, BATCH_FIRST), "a model that turns its batch before it hands it on"


def test_a_model_never_seen_is_batch_first() -> None:
    order = BatchOrder()
    order.add_model(0, nn.LSTM(4, 4))
    order.observe(0, torch.Size([35, 20]), torch.Size([700, 4]))
    assert order.unknown == {0}
    order.settle([0])
    assert (order.unknown, order.second) == (set(), set())


def test_nested_tensors_have_a_size() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(3, 4), torch.zeros(5, 4)])
    tally = BatchTally()
    tally.forward(0, (nested,), {})
    assert tally.work()[:4] == (1, 2, 2, BATCH_FIRST)


def test_inference_has_no_backward() -> None:
    tally = BatchTally()
    tally.forward(0, (torch.zeros(5, 2),), {})
    assert tally.work()[:3] == (1, 5, 5)


def test_a_model_without_tensors_has_no_batch() -> None:
    tally = BatchTally()
    tally.forward(0, (3,), {"flag": True})
    assert tally.work()[:3] == (1, 0, 0)


def test_nothing_ran() -> None:
    tally = BatchTally()
    assert tally.work()[:3] == (0, 0, 0)
