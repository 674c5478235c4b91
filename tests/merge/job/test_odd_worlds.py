"""Worlds that are not what one would wish: right, or honestly assumed, and never wrong and silent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text import TextOptions, render
from distprof.records import Mesh, Parameters, Record, Topology


def report(
    job: Job, bend: Callable[[int, Record], Record] = lambda rank, record: record, dead: Iterable[int] = ()
) -> Report:
    ranks = sorted(set(range(job.world)) - set(dead))
    return analyse(run_of_shards([shard_of([bend(rank, one) for one in rank_records(job, rank)]) for rank in ranks]))


def text_of(found: Report) -> str:
    return " ".join(render(found, TextOptions(detail=False)).split())


def test_a_dead_rank_with_replicas() -> None:
    found = report(Job(dp=4, tp=2, ep=2), dead=[5])
    text = text_of(found)
    assert "7 of 8 ranks recorded; missing: 5" in text
    assert found.topology.sizes["tp"] == 2
    assert found.summary.params_exact == report(Job(dp=4, tp=2, ep=2)).summary.params_exact
    assert "params of model, at least:" in text and "not covered: only replicas (rank 5)" in text
    assert "fwd MACs of model, at least:" in text
    assert [row.rank for row in found.ranks] == [0, 1, 2, 3, 4, 6, 7]


def test_a_dead_stage() -> None:
    text = text_of(report(Job(dp=1, pp=2), dead=[1]))
    assert "params of model, at least:" in text and "not covered: pp 1 " in text


def test_dead_experts() -> None:
    assert "not covered: ep 3 " in text_of(report(Job(dp=4, ep=4), dead=[3]))


def test_a_mesh_whose_dimensions_have_odd_names_is_assumed_and_named() -> None:
    def bend(rank: int, record: Record) -> Record:
        if isinstance(record, Topology):
            mesh = Mesh(("rows", "cols"), (2, 2), (rank // 2, rank % 2))
            return replace(record, source="assumed", meshes=(mesh,))
        return record

    text = text_of(report(Job(dp=4), bend))
    assert "mp 1 (assumed)" in text
    assert "params of model, exact if ranks are replicas, as assumed:" in text
    assert "fwd MACs of model, exact if ranks are replicas, as assumed:" in text
    assert "data parallel assumed: the dimension names of its DeviceMesh (rows, cols) tell nothing;" in text


def test_of_two_models_on_different_meshes_the_disagreement_is_said_and_no_total_is_told() -> None:
    """Ranks 0-1 train one model on dp 2, tp 2; ranks 2-3 another on dp 4: no source says which is the job's."""

    def bend(rank: int, record: Record) -> Record:
        if isinstance(record, Topology) and rank >= 2:
            sizes = {**record.sizes, "dp": 2, "tp": 2, "mp": 2}
            places = {**record.coordinates, "dp": rank // 2, "tp": rank % 2, "mp": rank % 2}
            return replace(record, sizes=sizes, coordinates=places, source="device_mesh")
        if isinstance(record, Parameters) and rank >= 2:
            return replace(record, parameters=tuple(replace(p, name=f"other.{p.name}") for p in record.parameters))
        return record

    found = report(Job(dp=4, source="device_mesh"), bend)
    text = text_of(found)
    assert "ranks 2-3 see dp 2, tp 2 (device_mesh), the others dp 4, tp 1 (device_mesh)" in text
    assert found.summary.params_exact is None, "which ranks are replicas of which is not known"
    assert "embed.weight is on ranks 0-1 only and other.embed.weight is on ranks 2-3" in (
        " ".join(text.split()).replace("note: ", "")
    )


def test_ranks_that_lie_about_one_place_are_no_table() -> None:
    def bend(rank: int, record: Record) -> Record:
        return replace(record, sizes={**record.sizes, "tp": 3}) if isinstance(record, Topology) else record

    found = report(Job(dp=4), bend)
    assert (found.topology.source, found.topology.sizes["dp"], found.topology.sizes["tp"]) == ("assumed", 4, 1)
    assert "the parallel axes do not make up the job: dp 4 x cp 1 x tp 3 x pp 1 is 12 ranks" in text_of(found)
