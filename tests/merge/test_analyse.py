"""The whole report: equal for equal shards, a golden copy, and properties that hold for any report."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic import Job, in_memory, rank_records, shard_of, write_run

from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.load.run import load_run, run_of_shards
from distprof.merge.report import Report
from distprof.records import PHASES, Header, Record
from distprof.run_folder import RunFolder

GOLDEN = Path(__file__).parent / "golden" / "report.json"
JOBS = [
    Job(dp=1),
    Job(dp=4, slow_rank=1),
    Job(dp=4, tp=2, ep=2, layers=4, hot=3.0, slow_rank=5, slow_phase="backward"),
    Job(dp=2, pp=2, tp=2, layers=4, tp_experts=True),
    Job(dp=2, counted=False, experts=0),
    Job(dp=3, mode="forward", source="assumed"),
]


def of_job(job: Job) -> Report:
    return analyse(run_of_shards(in_memory(job)))


def every_number(value: Any) -> Iterator[float]:
    if is_dataclass(value):
        for field in fields(value):
            yield from every_number(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from every_number(tuple(value.values()))
    elif isinstance(value, tuple):
        for item in value:
            yield from every_number(item)
    elif isinstance(value, float | int):
        yield value


def test_golden() -> None:
    """After an intended change, run UPDATE_GOLDEN=1 pytest tests/merge/test_analyse.py, and read the difference."""
    text = to_json(of_job(Job(dp=3, tp=2, pp=1, ep=1, layers=2, steps=2, noise=0, slow_rank=4, hot=2.0)))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


# ---- the same shards, the same report --------------------------------------------------------------------------------


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_shards_does_not_matter(shuffler: random.Random) -> None:
    shards = in_memory(Job(dp=4, tp=2, ep=2, layers=4, slow_rank=3))
    expected = to_json(analyse(run_of_shards(shards)))
    shuffler.shuffle(shards)
    assert to_json(analyse(run_of_shards(shards))) == expected


def test_path_and_time_do_not_matter(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", dp=4, missing=(2,), slow_rank=1)
    second = tmp_path / "elsewhere" / "second"
    second.mkdir(parents=True)
    for file in reversed(RunFolder(first).shard_files()):
        shutil.copy(file, second)
    shutil.copy(RunFolder(first).manifest, second)
    texts = {to_json(analyse(load_run(folder))) for folder in (first, second, first)}
    assert len(texts) == 1
    assert str(tmp_path) not in texts.pop()


@settings(max_examples=10)
@given(st.permutations(range(4)))
def test_exchanging_data_parallel_ranks(places: list[int]) -> None:
    """Gives the records of rank ``places[i]`` to rank i: modules, totals and excesses stay the same."""

    def exchanged(rank: int) -> list[Record]:
        header, *rest = rank_records(job, places[rank])
        assert isinstance(header, Header)
        return [replace(header, rank=rank), *rest]

    job = Job(dp=4, slow_rank=1)
    before, after = of_job(job), analyse(run_of_shards([shard_of(exchanged(rank)) for rank in range(4)]))
    assert after.modules == before.modules
    assert after.summary.params_exact == before.summary.params_exact
    assert [layer.tokens for layer in after.experts] == [layer.tokens for layer in before.experts]
    for now, was in zip(after.skew.modules, before.skew.modules, strict=True):
        assert places[now.slowest_rank] == was.slowest_rank
        assert (now.subject, now.phase, now.excess_ns) == (was.subject, was.phase, was.excess_ns)


# ---- lost records ----------------------------------------------------------------------------------------------------


def shortened(record: Record, length: int) -> Record:
    """Returns the record with shorter arrays, as if it was written before the tree grew, or the tree was lost."""
    arrays = {field.name: getattr(record, field.name) for field in fields(record) if "dtype" in field.metadata}
    return replace(record, **{name: array[:length] for name, array in arrays.items()}) if arrays else record


@settings(max_examples=25)
@given(st.data())
def test_any_records_make_a_report(data: st.DataObject) -> None:
    job = Job(dp=3, tp=2, ep=3, experts=3, steps=2, tp_experts=True)
    shards = []
    for rank in range(job.world):
        header, *rest = rank_records(job, rank)
        kept = data.draw(st.lists(st.sampled_from(range(len(rest))), max_size=len(rest) + 2))
        cuts = st.integers(0, 30)
        shards.append(shard_of([header, *(shortened(rest[place], data.draw(cuts)) for place in kept)]))
    report = analyse(run_of_shards(shards))
    assert all(math.isfinite(number) for number in every_number(report))
    to_json(report)
    assert {name for name, value in vars(report.summary).items() if value is None} == set(report.summary.unavailable)


# ---- what holds for any report ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", JOBS)
def test_all_numbers_are_finite(job: Job) -> None:
    assert all(math.isfinite(number) for number in every_number(of_job(job)))


@pytest.mark.parametrize("job", JOBS)
def test_phases_add_up_to_the_iteration(job: Job) -> None:
    one_step = replace(job, steps=1)  # medians of several steps need not add up
    for row in of_job(one_step).ranks:
        assert row.phases_ns.keys() == set(PHASES)
        assert row.iteration_ns == sum(filter(None, row.phases_ns.values()))


@pytest.mark.parametrize("job", JOBS)
def test_root_macs_are_the_mean_of_the_ranks(job: Job) -> None:
    report = of_job(job)
    counted = [row.fwd_macs for row in report.ranks if row.fwd_macs is not None]
    assert len(counted) == (job.world if job.counted else 0)
    mean = sum(counted) / job.world if counted else None
    assert report.modules[0].macs == report.summary.fwd_macs_per_rank == mean


@pytest.mark.parametrize("job", JOBS)
def test_tables_are_consistent(job: Job) -> None:
    report = of_job(job)
    ranks, labels = [row.rank for row in report.ranks], [module.label for module in report.modules]
    assert ranks == list(report.run.ranks) == list(report.skew.map.ranks) == list(range(job.world))
    assert len(set(labels)) == len(labels)
    assert set(report.skew.map.subjects) <= set(labels)
    for index, module in enumerate(report.modules):
        assert module.parent < index
    for rows in (report.skew.map.self_ns, report.skew.map.excess_ns):
        assert {len(row) for row in rows} == {len(report.skew.map.subjects)}
    for layer in report.experts:
        assert len(layer.tokens) == len(layer.expert_ranks) == layer.num_experts
        assert set(layer.dead) == {expert for expert, tokens in enumerate(layer.tokens) if tokens == 0}


@pytest.mark.parametrize("job", JOBS)
def test_spreads_are_ordered(job: Job) -> None:
    summary = of_job(job).summary
    for spread in (summary.params_per_rank, summary.fwd_latency_ns, summary.iter_latency_ns, summary.wall_iteration_ns):
        assert spread is not None
        assert spread.min <= spread.median <= spread.max and spread.min <= spread.mean <= spread.max


def test_mixed_devices_are_noted() -> None:
    def records(rank: int) -> list[Record]:
        header, *rest = rank_records(Job(dp=3), rank)
        assert isinstance(header, Header)
        return [replace(header, device="cuda" if rank == 2 else "cpu"), *rest]

    (note,) = analyse(run_of_shards([shard_of(records(rank)) for rank in range(3)])).run.notes
    assert note == "rank 2 ran on a different kind of device than rank 0 (cpu)"


def test_a_run_without_iterations() -> None:
    report = analyse(run_of_shards([shard_of(rank_records(Job(dp=2), rank)[:2]) for rank in range(2)]))
    assert report.run.incomplete == dict.fromkeys(
        (0, 1), "0 of 3 timed steps, not counted, still running, killed or unable to write"
    )
    assert report.modules == () and report.experts == ()
    assert [row.params for row in report.ranks] == [None, None]
    assert report.skew.modules == () and report.skew.map.self_ns == ((), ())
