"""Micro-batches, batch size and samples of an iteration."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch

from distprof.probes.batch import BatchTally, batch_size


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
    assert batch_size(given) == size


def test_one_model_one_micro_batch() -> None:
    tally = BatchTally()
    tally.forward(0, (torch.zeros(8, 3),), {})
    tally.backward()
    assert tally.work() == (1, 8, 8)


def test_micro_batches_add_up_also_when_the_last_is_smaller() -> None:
    tally = BatchTally()
    for size in (8, 8, 8, 4):
        tally.forward(0, (torch.zeros(size, 3),), {})
        tally.backward()
    assert tally.work() == (4, 8, 28)


def test_a_batch_given_by_keyword() -> None:
    tally = BatchTally()
    tally.forward(0, (), {"x": torch.zeros(8, 3)})
    assert tally.work() == (1, 8, 8)
    behind_others = BatchTally()
    behind_others.forward(0, (None, 1), {"x": torch.zeros(8, 3)})
    assert behind_others.work().samples == 8


def test_a_gan_is_told_by_its_generator() -> None:
    """The discriminator sees real and fake, and fake once more: three calls, two backward passes, one batch."""
    tally = BatchTally()
    generator, discriminator = 0, 10
    tally.forward(generator, (torch.zeros(16, 4),), {})
    for _ in range(2):
        tally.forward(discriminator, (torch.zeros(16, 9),), {})
    tally.backward()
    tally.forward(discriminator, (torch.zeros(16, 9),), {})
    tally.backward()
    assert tally.work() == (1, 16, 16)


def test_two_views_of_one_batch_are_one_micro_batch() -> None:
    """Contrastive learning: two forwards, one backward."""
    tally = BatchTally()
    for _ in range(2):
        tally.forward(0, (torch.zeros(32, 4),), {})
    tally.backward()
    assert tally.work() == (1, 32, 32)


def test_inference_has_no_backward() -> None:
    tally = BatchTally()
    tally.forward(0, (torch.zeros(5, 2),), {})
    assert tally.work() == (1, 5, 5)


def test_a_model_without_tensors_has_no_batch() -> None:
    tally = BatchTally()
    tally.forward(0, (3,), {"flag": True})
    assert tally.work() == (1, 0, 0)


def test_nothing_ran() -> None:
    tally = BatchTally()
    assert tally.work() == (0, 0, 0)
