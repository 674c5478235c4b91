"""Counts on an accelerator, with tensors of the host: the same functions, and numbers that can be compared."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distprof.tensors import device_counts
from distprof.tensors.device_counts import as_it_is, copied, count_on_device, is_made

INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


@settings(deadline=None)
@given(
    st.lists(st.integers(-(1 << 62), 1 << 62) | st.integers(-2, 9) | st.integers(120, 300), max_size=60),
    st.sampled_from(INTEGERS),
    st.sampled_from([1, 2, 7, 8, 127, 128, 200, 255, 256, 300]),
    st.integers(1, 3),
)
def test_counts_are_those_of_the_host(values: list[int], dtype: torch.dtype, experts: int, step: int) -> None:
    limits = torch.iinfo(dtype)
    ids = [min(max(value, limits.min), limits.max) for value in values]
    found = count_on_device(torch.tensor(ids, dtype=dtype)[::step], experts)
    assert found.dtype == torch.int64
    assert found.tolist() == [ids[::step].count(expert) for expert in range(experts)]


@pytest.mark.parametrize(
    "ids",
    [
        torch.tensor([[0, 1, 1], [1, 3, 2]]),
        torch.tensor([[0, 1, 1], [1, 3, 2]]).t(),
        torch.tensor([[0, 1, 1, 9], [1, 3, 2, 9]])[:, :3],
        torch.tensor([[0, 1, 1], [1, 3, 2]]).reshape(1, 2, 3).permute(2, 0, 1),
        torch.tensor(2),
        torch.zeros(0, 2, dtype=torch.int64),
        torch.tensor([1]).expand(6),
    ],
)
def test_ids_of_any_shape_are_counted_without_a_warning(ids: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = count_on_device(ids, 4)
    assert found.tolist() == [ids.flatten().tolist().count(expert) for expert in range(4)]


def test_no_count_changes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_counts, "_ZEROS", 20)
    monkeypatch.setattr(device_counts, "_here", device_counts._OfThread())
    counts = [(number % 5, count_on_device(torch.full((number,), number % 5), 5)) for number in range(40)]
    wide = count_on_device(torch.tensor([39]), 40)
    for number, (expert, found) in enumerate(counts):
        assert found.tolist() == [number if one == expert else 0 for one in range(5)]
    assert wide.tolist() == [0] * 39 + [1]


def test_threads_share_no_zeros() -> None:
    storages: list[int] = []

    def count() -> None:
        storages.append(count_on_device(torch.tensor([1]), 4).untyped_storage().data_ptr())

    count()
    other = threading.Thread(target=count)
    other.start()
    other.join()
    assert len(set(storages)) == 2


def test_copies_are_not_the_scripts_tensors() -> None:
    counts, loss = torch.tensor([3, 1, 2]), torch.tensor(1.5, dtype=torch.bfloat16, requires_grad=True)
    slots = torch.tensor(7, dtype=torch.int32)
    found = [as_it_is(loss), as_it_is(counts), copied(slots)]
    assert all(is_made(one) and not one.requires_grad for one in found)
    with torch.no_grad():
        for tensor in (counts, loss, slots):
            tensor.zero_()
    assert [one.tolist() for one in found] == [1.5, [3, 1, 2], 7]
    assert [one.dtype for one in found] == [torch.bfloat16, torch.int64, torch.int64]
    assert not is_made(counts)
