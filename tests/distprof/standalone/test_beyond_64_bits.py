"""Tests of work beyond 64 bits: if nothing runs, models and batches may have any size."""

from __future__ import annotations

import torch
from torch import nn

from distprof import get_model_profile
from distprof.standalone import FlopsProfiler

BATCH, WIDTH = 1 << 36, 1 << 14


def test_counts_beyond_64_bits_are_exact() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, 1, bias=False))
        x = torch.zeros(BATCH, WIDTH)
    macs = BATCH * WIDTH * WIDTH + BATCH * WIDTH
    assert macs >= 1 << 63
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    model(x)
    assert profiler.get_total_macs() == macs
    assert profiler.get_total_flops() == 2 * macs
    profiler.end_profile()


def test_a_profile_of_such_a_model_is_printed() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, 1, bias=False))
        x = torch.zeros(BATCH, WIDTH)
    flops, macs, _ = get_model_profile(model, args=[x], print_profile=True, as_string=False)
    assert (flops, macs) == (2 * (BATCH * WIDTH * WIDTH + BATCH * WIDTH), BATCH * WIDTH * WIDTH + BATCH * WIDTH)
