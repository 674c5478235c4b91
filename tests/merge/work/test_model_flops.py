"""The forward work of the whole model: equal in every layout, without repeated work and padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reports import changed_report, report_of
from support.synthetic import TOKENS, VOCABULARY, WIDTH, Job, rank_records, shard_of, stage_of

from distprof.merge.analyse import analyse
from distprof.merge.analysis import start_analysis
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import ModelWork, Report
from distprof.merge.text.deepspeed.model import work_lines
from distprof.merge.work.model_flops import model_work
from distprof.records import Counts, ExpertLayers, ExpertRouting, LayerRouting, Parameters, Record, Tree


def by_hand(job: Job) -> int:
    """The MACs of a batch through the whole model: every Linear, top-k experts, the shared expert."""
    sparse = job.layers // 2 if job.experts else 0
    attention, dense, expert = 4 * WIDTH**2, 8 * WIDTH**2, 8 * WIDTH**2
    moe = job.experts * WIDTH + job.top_k * expert + (WIDTH**2 if job.shared_expert else 0)
    token = job.layers * attention + (job.layers - sparse) * dense + sparse * moe + VOCABULARY * WIDTH
    return TOKENS * job.batch * job.micro_batches * token


def work(job: Job, ranks: set[int] | None = None, change: Any = None) -> ModelWork | None:
    kept = sorted(range(job.world) if ranks is None else ranks)
    records = ([change(rank, one) if change else one for one in rank_records(job, rank)] for rank in kept)
    run = run_of_shards([shard_of(one) for one in records])
    return model_work(start_analysis(run))


def exact(job: Job) -> ModelWork:
    found = work(job)
    assert found is not None and found.covers_all
    return found


jobs = st.builds(
    Job,
    dp=st.sampled_from([1, 2, 4]),
    tp=st.sampled_from([1, 2]),
    pp=st.sampled_from([1, 2]),
    ep=st.sampled_from([1, 2, 4]),
    layers=st.integers(2, 4),
    experts=st.sampled_from([0, 4, 8]),
    tp_experts=st.booleans(),
    shared_expert=st.booleans(),
    local_names=st.booleans(),
    micro_batches=st.integers(1, 2),
    steps=st.just(1),
).filter(lambda job: job.ep <= job.dp and (job.experts or job.ep == 1))


@settings(max_examples=40, deadline=None)
@given(jobs)
def test_the_layout_does_not_change_the_work_of_the_model(job: Job) -> None:
    found = exact(job)
    assert found.macs == found.useful_macs == by_hand(job)
    assert found.executed_macs >= found.macs
    assert (found.executed_macs > found.macs) == (job.tp > 1 and job.experts > 0), "all tp ranks have whole routers"


def test_replicated_experts_of_tp_ranks_count_once() -> None:
    job = Job(dp=2, ep=2, tp=2)
    found = exact(job)
    experts = TOKENS * job.batch * job.top_k * 8 * WIDTH**2
    router = TOKENS * job.batch * job.experts * WIDTH
    assert found.executed_macs - found.macs == experts + router


def test_tokens_divided_over_tp_ranks_add_up() -> None:
    job = Job(dp=2, ep=2, tp=2, split_tokens=True)
    found = exact(job)
    assert found.macs == found.executed_macs == found.useful_macs == by_hand(job)


def test_experts_with_unequal_work_are_no_replicas() -> None:
    def change(rank: int, record: Record) -> Record:
        if isinstance(record, Counts) and rank % 2:
            return replace(record, forward_macs=record.forward_macs + (np.arange(len(record.forward_macs)) == last))
        return record

    job = Job(dp=1, tp=2, layers=2)
    last = len(next(r for r in rank_records(job, 0) if isinstance(r, Counts)).forward_macs) - 3  # the last expert's
    alike, other = work(job), work(job, change=change)
    assert alike is not None and other is not None
    assert other.macs - alike.macs == TOKENS * job.batch * job.top_k * 8 * WIDTH**2 + 1


@pytest.mark.parametrize("layout", [{"dp": 2}, {"dp": 4, "ep": 2}, {"dp": 2, "tp": 2, "tp_experts": True}])
def test_padding_is_no_useful_work(layout: dict[str, Any]) -> None:
    found, lean = exact(Job(**layout, padding=3)), exact(Job(**layout))
    assert found.useful_macs == pytest.approx(lean.macs)
    assert found.macs > lean.macs
    assert found.useful_flops is not None and found.useful_flops < found.flops


@pytest.mark.parametrize("padding", [1, 2])
def test_empty_slots_are_no_useful_work_where_choices_were_dropped(padding: int) -> None:
    """Of the counted choices a quarter is dropped: as many slots are empty, beside those of the padding."""
    job = Job(dp=2, layers=2, padding=padding)
    choices = TOKENS * job.batch * job.micro_batches * job.top_k
    routed, dropped = np.full(job.experts, choices // job.experts), np.zeros(job.experts, np.int64)
    dropped[1] = choices // job.experts

    def counted(rank: int) -> list[Record]:
        records = [*rank_records(job, rank)]
        (counts,) = (record for record in records if isinstance(record, Counts))
        layer = LayerRouting(0, routed, drops_known=True, dropped=dropped)
        return [*records, ExpertRouting(counts.iteration, (layer,))]

    found = model_work(start_analysis(run_of_shards([shard_of(counted(rank)) for rank in range(2)])))
    experts = choices * 8 * WIDTH**2
    assert found is not None
    assert found.macs - found.useful_macs == pytest.approx((padding - 3 / 4) * experts)  # type: ignore[operator]


def test_a_router_that_uses_the_weight_of_its_child() -> None:
    """DeepSpeed's gate never calls its child ``wg``, so the gate has the MACs."""
    job = Job(dp=2, padding=2)
    stage = stage_of(job, 0)
    (router,) = (row for row, spec in enumerate(stage.specs) if spec.name.endswith("router"))
    inner = replace(stage.rows[router], name=f"{stage.rows[router].name}.wg", parent=router, depth=6)

    def change(rank: int, record: Record) -> Record:
        if isinstance(record, Tree):
            return replace(record, rows=(*record.rows, inner))
        if isinstance(record, Parameters):
            moved = (replace(p, row=len(stage.rows)) if p.row == router else p for p in record.parameters)
            return replace(record, parameters=tuple(moved))
        return record

    found, called = work(job, change=change), work(job)
    assert found is not None and found == called
    assert found.useful_macs is not None and found.useful_macs < found.macs


def test_useful_work_is_unknown_without_top_k() -> None:
    found = exact(Job(dp=2, top_k=0))
    assert (found.useful_macs, found.useful_flops) == (None, None)
    assert any("n/a: no router or top-k was seen" in line for line in work_lines(report_of(dp=2, top_k=0)))


@pytest.mark.parametrize("layout", [{"dp": 4, "ep": 2}, {"dp": 2, "tp": 2, "tp_experts": True}, {"dp": 1, "pp": 2}])
def test_active_parameters_are_measured_without_top_k(layout: dict[str, Any]) -> None:
    """The measured experts per token are rows of experts / tokens of the router."""
    job = {"layers": 4, "experts": 8, "tied_stages": True, **layout}
    said, measured = report_of(**job).model, report_without_top_k(**job).model
    assert said.active_params == measured.active_params and said.active_params is not None
    assert (said.active_is_measured, measured.active_is_measured) == (False, True)


def report_without_top_k(**job: Any) -> Report:
    def change(_: int, record: Record) -> Record:
        if isinstance(record, ExpertLayers):
            return ExpertLayers(tuple(replace(layer, top_k=0) for layer in record.layers))
        return record

    return changed_report(change, **job)


@settings(max_examples=30, deadline=None)
@given(jobs, st.data())
def test_work_is_a_lower_bound_with_missing_ranks(job: Job, data: st.DataObject) -> None:
    ranks = data.draw(st.sets(st.integers(0, job.world - 1), min_size=1))
    found = work(job, ranks)
    assert found is not None
    assert found.macs <= by_hand(job) * (1 + 1e-9)
    assert found.covers_all == (len(ranks) == job.world)


def test_no_work_without_counts() -> None:
    assert work(Job(dp=2, counted=False)) is None
    assert list(work_lines(report_of(dp=2, counted=False))) == []


def test_lines_of_the_report() -> None:
    plain = [line.split(":")[0] for line in work_lines(report_of(dp=2))]
    assert plain == ["fwd MACs of model, exact", "fwd flops of model, exact"]
    padded = " ".join(work_lines(report_of(dp=2, tp=2, padding=2)))
    assert "useful, without padding, at most" in padded and "executed, with repeated work of tp ranks" in padded


def test_a_rank_without_module_tree_is_not_covered() -> None:
    """What the rank counted cannot be placed, so the figure is a lower bound."""
    shards = [shard_of(rank_records(Job(dp=2, tp=2), rank)) for rank in range(4)]
    shards[1].records[:] = [record for record in shards[1].records if not isinstance(record, Tree)]
    found = analyse(run_of_shards(shards)).model.forward
    assert found is not None and not found.covers_all
    assert found.macs == work(Job(dp=2, tp=2), {0, 2, 3}).macs  # type: ignore[union-attr]
