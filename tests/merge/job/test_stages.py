"""Modules of one name on several pipeline stages: one container, or another module on each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import report_of
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.job.module_union import ModuleUnion
from distprof.merge.job.stages import Pipeline, pipeline_position
from distprof.merge.job.topology import job_topology
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.run import run_of_shards
from distprof.records import ModuleRow, Record, Stage, Topology, Tree


def tree(*names: str, root_class: str = "GPT", root: int = 0, wrapped: bool = False) -> RankTree:
    """Rows for dotted names, parents first; ``wrapped`` puts a DDP around the root."""
    rows = [ModuleRow("", "DDP", root, -1, 0, wrapper=True)] if wrapped else []
    rows.append(ModuleRow("", root_class, root, len(rows) - 1, len(rows)))
    place = {"": len(rows) - 1}
    for name in names:
        parent = place[name.rpartition(".")[0]]
        rows.append(ModuleRow(name, "M", root, parent, rows[parent].depth + 1))
        place[name] = len(rows) - 1
    return RankTree(tuple(rows))


def labels(*stages: RankTree) -> list[str]:
    """Each tree is one stage's."""
    pipelines = [Pipeline(stage) for stage in range(len(stages))]
    return [module.label for module in ModuleUnion(stages, pipelines).modules]


def test_layers_that_each_stage_numbers_anew_are_others_on_each() -> None:
    first, last = tree("embed", "layers", "layers.0", "layers.1"), tree("layers", "layers.0", "layers.1", "head")
    assert labels(first, last) == [
        "GPT", "embed",
        "layers [stage 0]", "layers.0 [stage 0]", "layers.1 [stage 0]",
        "layers [stage 1]", "layers.0 [stage 1]", "layers.1 [stage 1]",
        "head",
    ]  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_container_that_the_pipeline_runs_through_is_one(wrapped: bool) -> None:
    found = labels(tree("layers", "layers.0", wrapped=wrapped), tree("layers", "layers.1", wrapped=wrapped))
    assert found == [*(["DDP"] if wrapped else []), "GPT", "layers", "layers.0", "layers.1"]


def test_a_leaf_that_stands_on_several_stages_is_another_on_each() -> None:
    found = labels(tree("embed", "layers", "layers.0"), tree("layers", "layers.1", "embed"))
    assert [label for label in found if "embed" in label] == ["embed [stage 0]", "embed [stage 1]"]
    assert found.count("layers") == 1


def test_roots_of_stages_that_are_all_alike_are_others() -> None:
    one = tree("0", "1", root_class="Sequential")
    assert labels(one, one) == [
        "Sequential [stage 0]", "0 [stage 0]", "1 [stage 0]", "Sequential [stage 1]", "0 [stage 1]", "1 [stage 1]",
    ]  # fmt: skip


def test_uneven_local_numbers_are_local_numbers() -> None:
    found = labels(tree("layers", "layers.0", "layers.1", "head"), tree("layers", "layers.0"))
    assert "layers.0 [stage 0]" in found and "layers.0 [stage 1]" in found


def test_on_one_stage_nothing_is_marked() -> None:
    one = tree("layers", "layers.0")
    assert [module.label for module in ModuleUnion([one, one]).modules] == ["GPT", "layers", "layers.0"]


def test_virtual_stages_of_a_rank_are_one_model() -> None:
    def rank(layers: tuple[int, int]) -> RankTree:
        halves = [tree("layers", f"layers.{layer}", root=root) for root, layer in enumerate(layers)]
        rows = [*halves[0].rows]
        for row in halves[1].rows:
            parent = row.parent + len(halves[0]) if row.parent >= 0 else -1
            rows.append(ModuleRow(row.name, row.class_name, row.root, parent, row.depth))
        return RankTree(tuple(rows))

    pipelines = [Pipeline(pp, ((0, 0, pp), (1, 0, pp + 2))) for pp in range(2)]
    modules = ModuleUnion([rank((0, 2)), rank((1, 3))], pipelines).modules
    assert [module.label for module in modules] == ["GPT", "layers", *(f"layers.{number}" for number in range(4))]


def test_stages_come_from_the_record_of_them_or_from_pp() -> None:
    def bend(record: Record) -> Record:
        if isinstance(record, Topology):
            return replace(record, stages=(Stage(1, 3, 4), Stage(2, 1, 4)))
        return record

    job = Job(dp=1, pp=2)
    run = run_of_shards([shard_of(rank_records(job, 0)), shard_of(map(bend, rank_records(job, 1)))])
    layout = job_topology(run)
    plain, said = (pipeline_position(data, layout) for data in run.ranks)
    assert [plain.place(0), plain.place(1)] == [(0, 0), (1, 0)]
    assert [said.place(0), said.place(1), said.place(2)] == [(0, 1), (1, 3), (1, 1)]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.booleans())
def test_no_layer_is_lost_or_counted_twice(sizes: list[int], local: bool) -> None:
    trees = []
    for stage, size in enumerate(sizes):
        first = 0 if local else sum(sizes[:stage])
        own = [f"layers.{first + number}.{part}".rstrip(".") for number in range(size) for part in ("", "up")]
        trees.append(tree("layers", *own))
    found = labels(*trees)
    assert sum(".up" in label for label in found) == sum(sizes)
    assert any("[stage" in label for label in found) == local


def test_numbers_of_two_stages_are_not_mixed() -> None:
    """Of lists of layers that no list of the model can be made of, because one of their classes is another."""
    job = Job(dp=3, pp=2, layers=4, noise=0, slow_rank=4, slow_module="blocks.0.attn", local_names=True)

    def bend(rank: int, record: Record) -> Record:
        if rank >= job.dp and isinstance(record, Tree):
            rows = (replace(row, class_name="Last") if row.name == "blocks.1" else row for row in record.rows)
            return replace(record, rows=tuple(rows))
        return record

    shards = [shard_of(bend(rank, record) for record in rank_records(job, rank)) for rank in range(job.world)]
    report = analyse(run_of_shards(shards))
    rows = {module.label: module for module in report.modules}
    assert (rows["blocks.0.attn [stage 1]"].stage, rows["blocks.0.attn [stage 1]"].ranks) == (1, 3)
    assert rows["blocks.0.attn [stage 0]"].ranks == 3
    assert rows["GPT"].ranks == 6 and rows["GPT"].stage is None
    assert report.skew.modules[0].subject == "blocks.0.attn [stage 1]"
    assert (rows["blocks.1 [stage 0]"].class_name, rows["blocks.1 [stage 1]"].class_name) == ("Block", "Last")
    assert [layer.name for layer in report.experts] == ["blocks.1.moe [stage 0]", "blocks.1.moe [stage 1]"]
    named = report_of(dp=3, pp=2, layers=4, noise=0)
    assert len(report.modules) == len(named.modules) + 1  # blocks itself stands on each stage
