"""Tests of a profile beside a recorder, beside another profile, and with compiled code: none affects another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import record
from torch import nn

from distprof import FlopsProfiler, get_model_profile
from distprof.records import Counts, Step

X = torch.ones(2, 8)


def linear() -> nn.Linear:
    return nn.Linear(8, 4, bias=False)


@pytest.mark.parametrize("step", range(4), ids=["quiet", "counted", "timed", "afterwards"])
def test_a_recorded_script_may_profile_itself(tmp_path: Path, step: int) -> None:
    profiles = []

    def job() -> None:
        model = linear()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        profiler = FlopsProfiler(model)
        for now in range(4):
            if now == step:
                profiler.start_profile()
            model(X).sum().backward()
            if now == step:
                profiler.stop_profile()
                profiles.append(profiler.get_total_macs())
            optimizer.step()

    seen = record(tmp_path, job, warmup=1, count=True, timed=1)
    assert profiles == [64]
    assert seen.by_name(seen.one(Counts).forward_macs) == {"": 64}
    assert seen.by_name(seen.one(Counts).backward_macs) == {"": 64}
    assert seen.one(Step).calls.tolist() == [1]


def test_two_profiles_of_two_models_see_their_own() -> None:
    one, other = linear(), nn.Linear(4, 2, bias=False)
    first, second = FlopsProfiler(one), FlopsProfiler(other)
    first.start_profile()
    second.start_profile()
    other(one(X))
    second.end_profile()
    assert first.get_total_macs() == 64
    second.start_profile()
    other(one(X))
    assert second.get_total_macs() == 16
    second.end_profile()
    assert first.get_total_macs() == 128
    first.end_profile()


@pytest.mark.slow
def test_compiled_code_stays_compiled_and_is_counted_whole() -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.GELU(), nn.Linear(8, 4, bias=False)).eval()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    plain = compiled(X)
    graphs = dict(counters["stats"])
    _, macs, params = get_model_profile(compiled, args=[X], print_profile=False, as_string=False)
    profiler = FlopsProfiler(compiled)
    profiler.start_profile()
    counted = compiled(X)
    profiler.end_profile()
    assert (macs, params) == (2 * (64 + 32), 96)
    assert torch.equal(plain, counted) and torch.equal(plain, compiled(X))
    assert dict(counters["stats"]) == graphs and not counters["graph_break"]
