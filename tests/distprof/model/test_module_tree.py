"""The module tree: rows, names, sizes, and which row a call belongs to."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from support.worlds import rank_of
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from distprof.frameworks.registry import FrameworkRegistry
from distprof.model.module_tree import MAX_ROWS, ModuleTree
from distprof.records import ModuleRow
from distprof.shard.validation import validate


def adopted(model: nn.Module) -> ModuleTree:
    tree = ModuleTree(FrameworkRegistry())
    tree.adopt(model)
    return tree


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2, bias=False)))


def test_rows_in_the_models_own_order() -> None:
    rows = adopted(small()).rows
    assert [row.name for row in rows] == ["", "0", "1", "1.0", "1.1"]
    assert [row.class_name for row in rows] == ["Sequential", "Linear", "Sequential", "ReLU", "Linear"]
    assert [row.parent for row in rows] == [-1, 0, 0, 2, 2]
    assert [row.depth for row in rows] == [0, 1, 1, 2, 2]
    assert rows[1].extra_repr == "in_features=4, out_features=3, bias=True"
    assert not any(row.wrapper for row in rows)


def test_own_and_total_parameters() -> None:
    rows = adopted(small()).rows
    assert [row.own_params for row in rows] == [0, 15, 0, 0, 6]
    assert [row.total_params for row in rows] == [21, 15, 6, 0, 6]


def test_buffers_are_no_parameters() -> None:
    assert adopted(nn.BatchNorm1d(5)).rows[0].total_params == 10


def test_a_parameter_counts_once_in_a_subtree_however_often_it_is_in_it() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(10, 4), "head": nn.Linear(4, 10, bias=False)})
    model["head"].weight = model["embed"].weight
    rows = adopted(model).rows
    assert [row.own_params for row in rows] == [0, 40, 40]
    assert rows[0].total_params == 40


class Cell(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_a_module_under_two_names_has_a_row_under_each() -> None:
    shared: Any = Cell(nn.Linear(2, 2))
    model = nn.ModuleDict({"a": Cell(shared), "b": Cell(shared)})
    tree = adopted(model)
    assert [row.name for row in tree.rows] == ["", "a", "a.inner", "a.inner.inner", "b", "b.inner", "b.inner.inner"]
    assert tree.rows[0].total_params == 6
    a, b = 1, 4
    assert tree.find(shared, a) == 2 and tree.find(shared, b) == 5
    assert tree.find(shared.inner, 2) == 3 and tree.find(shared.inner, 5) == 6
    assert tree.find(shared, -1) == 2


def test_names_and_rows_agree_with_torchs_own() -> None:
    """Rows stand in the order of named_modules, each name of a shared module included."""
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.ModuleList([shared, nn.ReLU()]))
    assert [row.name for row in adopted(model).rows] == [n for n, _ in model.named_modules(remove_duplicate=False)]


def test_a_call_is_looked_up_by_identity_and_unknown_ones_are_none() -> None:
    model: Any = small()
    tree = adopted(model)
    assert tree.find(model[1][1], 2) == 4
    assert tree.find(nn.Linear(4, 3), 0) is None


def test_a_module_that_its_caller_does_not_own_stands_below_it() -> None:
    tree = adopted(small())
    row = tree.adopt(nn.Sequential(nn.Linear(2, 2)), parent=2)
    assert row == 5
    assert [(r.name, r.parent, r.depth, r.root) for r in tree.rows[5:]] == [
        ("1.<Sequential>", 2, 2, 0),
        ("1.<Sequential>.0", 5, 3, 0),
    ]


def test_models_are_numbered() -> None:
    tree = ModuleTree(FrameworkRegistry())
    models = [nn.Linear(1, 1) for _ in range(3)]
    assert [tree.adopt(model) for model in models] == [0, 1, 2]
    assert [row.root for row in tree.rows] == [0, 1, 2]


def test_news_is_told_once() -> None:
    tree = ModuleTree(FrameworkRegistry())
    assert tree.news() is None
    tree.adopt(small())
    first = tree.news()
    assert first is not None and (first.first_row, len(first.rows)) == (0, 5)
    assert tree.news() is None
    tree.adopt(nn.Linear(1, 1))
    second = tree.news()
    assert second is not None and (second.first_row, len(second.rows)) == (5, 1)
    validate(first)
    validate(second)


def test_a_module_that_is_gone_is_forgotten() -> None:
    """An id may come back as that of another module."""
    tree = ModuleTree(FrameworkRegistry())
    model = small()
    tree.adopt(model)
    ids = [id(module) for module in model.modules()]
    del model
    gc.collect()
    assert not any(key in tree.row_of for key in ids)
    assert len(tree.rows) == 5


def test_a_wrapper_made_around_a_known_model_takes_its_modules_over() -> None:
    """Evaluated bare first, then trained inside something bigger: the call's row is the bigger one's."""
    tree, model = ModuleTree(FrameworkRegistry()), small()
    tree.adopt(model)
    root = tree.adopt(Cell(model))
    row = tree.find(model, root)
    assert row is not None
    assert (tree.rows[row].name, tree.rows[row].root) == ("inner", 1)


def wrapped_names(tree: ModuleTree) -> list[tuple[str, str]]:
    return [(row.name, row.class_name) for row in tree.rows]


MODULES = [("0", "Linear"), ("1", "Sequential"), ("1.0", "ReLU"), ("1.1", "Linear")]


def test_ddp_does_not_show_in_names() -> None:
    with rank_of(2):
        tree = adopted(DistributedDataParallel(small()))
    assert wrapped_names(tree) == [("", "DistributedDataParallel"), ("", "Sequential"), *MODULES]
    assert [row.wrapper for row in tree.rows][:3] == [True, False, False]


def test_torch_compile_does_not_show_in_names() -> None:
    compiled: Any = torch.compile(small())
    tree = adopted(compiled)
    assert wrapped_names(tree) == [("", "OptimizedModule"), ("", "Sequential"), *MODULES]
    assert tree.rows[0].wrapper


def test_a_checkpoint_wrapper_does_not_show_in_names() -> None:
    model = small()
    model[1] = checkpoint_wrapper(model[1])
    names = [row.name for row in adopted(model).rows]
    assert names == ["", "0", "1", "1", "1.0", "1.1"]


def test_fsdp2_does_not_show_in_classes_and_its_shards_count_whole() -> None:
    with rank_of(4):
        model = small()
        fully_shard(model, mesh=init_device_mesh("cpu", (4,), mesh_dim_names=("dp",)))
        tree = adopted(model)
    assert wrapped_names(tree) == [("", "Sequential"), *MODULES]
    assert tree.rows[0].total_params == 21


def test_a_class_of_the_users_own_that_begins_with_fsdp_keeps_its_name() -> None:
    class FSDPThing(nn.Module):
        pass

    assert adopted(FSDPThing()).rows[0].class_name == "FSDPThing"


def test_an_attribute_that_only_looks_like_a_wrapper_is_part_of_the_name() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(1, 1)

    rows = adopted(Holder()).rows
    assert (rows[0].wrapper, rows[1].name) == (False, "module")


def test_an_extra_repr_that_fails_is_empty_and_a_long_one_is_cut() -> None:
    class Odd(nn.Module):
        def __init__(self, text: Any) -> None:
            super().__init__()
            self.text = text

        def extra_repr(self) -> str:
            return self.text

    class Fails(nn.Module):
        def extra_repr(self) -> str:
            raise ValueError("not yet")

    assert adopted(Fails()).rows[0].extra_repr == ""
    assert adopted(Odd(3)).rows[0].extra_repr == "3"
    assert len(adopted(Odd("x" * 100_000)).rows[0].extra_repr) == 1000


def test_modules_made_in_every_forward_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distprof.model.module_tree.MAX_ROWS", 20)
    tree = adopted(small())
    kept = [small() for _ in range(10)]
    rows = [tree.adopt(model, parent=0) for model in kept]
    assert rows[:3] == [5, 10, 15] and rows[3:] == [-1] * 7
    assert len(tree.rows) <= 20 < MAX_ROWS


def test_a_module_inside_itself_ends_somewhere() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.loop = model
    rows: list[ModuleRow] = adopted(model).rows
    assert len(rows) < 10
    assert rows[0].total_params == 6


def test_parameters_that_are_not_there_yet() -> None:
    """Lazy modules learn their shape in the first forward, which is when they are adopted."""
    rows = adopted(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))).rows
    assert [row.total_params for row in rows] == [8, 0, 8]


def test_a_module_made_anew_in_every_forward_has_one_row_for_each_caller() -> None:
    tree = adopted(small())
    for _ in range(3):
        assert tree.adopt(nn.Sequential(nn.CrossEntropyLoss()), parent=0) == 5
        assert tree.adopt(nn.Sequential(nn.CrossEntropyLoss()), parent=2) == 7
    assert [row.name for row in tree.rows[5:]] == [
        "<Sequential>", "<Sequential>.0", "1.<Sequential>", "1.<Sequential>.0",
    ]  # fmt: skip
    living = nn.CrossEntropyLoss(), nn.CrossEntropyLoss()
    assert [tree.adopt(loss, parent=0) for loss in living] == [9, 10]
    assert [tree.find(loss, 0) for loss in living] == [9, 10]


def test_a_model_made_anew_is_the_same_model_if_it_is_built_alike() -> None:
    tree = ModuleTree(FrameworkRegistry())
    assert [tree.adopt(nn.Linear(2, 2)) for _ in range(3)] == [0, 0, 0]
    assert tree.adopt(nn.Linear(2, 3)) == 1


def test_a_new_container_of_old_modules_does_not_remember_them_twice() -> None:
    model = small()
    tree = adopted(model)
    for _ in range(3):
        tree.adopt(nn.Sequential(model[0]), parent=0)
    assert [row.name for row in tree.rows[5:]] == ["<Sequential>", "<Sequential>.0"]
    assert tree.find(model[0], 0) == 1 and tree.find(model[0], 5) == 6


class CheckpointWrapper(nn.Module):
    """As torch's, and as a class of FSDP2's before it is called after it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._checkpoint_wrapped_module = inner


class FSDPCheckpointWrapper(CheckpointWrapper): ...


def test_a_wrapper_is_known_under_the_class_that_fsdp2_puts_before_it() -> None:
    rows = adopted(nn.Sequential(FSDPCheckpointWrapper(nn.Sequential(nn.ReLU())))).rows
    assert [(row.name, row.wrapper) for row in rows] == [("", False), ("0", True), ("0", False), ("0.0", False)]


class _FabricModule(nn.Module):
    """As Lightning Fabric's: the module as the strategy wrapped it, and the one that was wrapped."""

    def __init__(self, wrapped: nn.Module, original: nn.Module) -> None:
        super().__init__()
        self._forward_module, self._original_module = wrapped, original


def test_a_model_that_its_wrapper_holds_twice_has_its_rows_once() -> None:
    model = small()
    rows = adopted(_FabricModule(CheckpointWrapper(model), model)).rows
    assert [(row.name, row.wrapper) for row in rows] == [
        ("", True), ("", True), ("", False), ("0", False), ("1", False), ("1.0", False), ("1.1", False),
    ]  # fmt: skip
    assert [row.own_params for row in rows] == [0, 0, 0, 15, 0, 0, 6]


def test_a_module_that_holds_itself() -> None:
    model: Any = small()
    model.add_module("again", model)
    assert [row.name for row in adopted(model).rows] == ["", "0", "1", "1.0", "1.1"]
