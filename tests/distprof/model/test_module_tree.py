"""The module tree: rows, names, sizes, and the row of a call."""

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


def test_order_of_rows() -> None:
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


def test_shared_parameter_counts_once() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(10, 4), "head": nn.Linear(4, 10, bias=False)})
    model["head"].weight = model["embed"].weight
    rows = adopted(model).rows
    assert [row.own_params for row in rows] == [0, 40, 40]
    assert rows[0].total_params == 40


class Cell(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_module_with_two_names_has_two_rows() -> None:
    shared: Any = Cell(nn.Linear(2, 2))
    model = nn.ModuleDict({"a": Cell(shared), "b": Cell(shared)})
    tree = adopted(model)
    assert [row.name for row in tree.rows] == ["", "a", "a.inner", "a.inner.inner", "b", "b.inner", "b.inner.inner"]
    assert tree.rows[0].total_params == 6
    a, b = 1, 4
    assert tree.find(shared, a) == 2 and tree.find(shared, b) == 5
    assert tree.find(shared.inner, 2) == 3 and tree.find(shared.inner, 5) == 6
    assert tree.find(shared, -1) == 2


def test_names_agree_with_torch() -> None:
    """Rows are in the order of named_modules, with each name of a shared module."""
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.ModuleList([shared, nn.ReLU()]))
    assert [row.name for row in adopted(model).rows] == [n for n, _ in model.named_modules(remove_duplicate=False)]


def test_find_by_identity() -> None:
    model: Any = small()
    tree = adopted(model)
    assert tree.find(model[1][1], 2) == 4
    assert tree.find(nn.Linear(4, 3), 0) is None


def test_unowned_module_is_below_its_caller() -> None:
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


def test_new_rows_are_taken_once() -> None:
    tree = ModuleTree(FrameworkRegistry())
    assert tree.take_new_rows() is None
    tree.adopt(small())
    first = tree.take_new_rows()
    assert first is not None and (first.first_row, len(first.rows)) == (0, 5)
    assert tree.take_new_rows() is None
    tree.adopt(nn.Linear(1, 1))
    second = tree.take_new_rows()
    assert second is not None and (second.first_row, len(second.rows)) == (5, 1)
    validate(first)
    validate(second)


def test_freed_module_is_forgotten() -> None:
    """Another module may get the id of a freed one."""
    tree = ModuleTree(FrameworkRegistry())
    model = small()
    tree.adopt(model)
    ids = [id(module) for module in model.modules()]
    del model
    gc.collect()
    assert not any(key in tree.row_of for key in ids)
    assert len(tree.rows) == 5


def test_wrapper_around_a_known_model() -> None:
    """A model that first runs alone, then inside a larger one: its calls get the larger one's rows."""
    tree, model = ModuleTree(FrameworkRegistry()), small()
    tree.adopt(model)
    root = tree.adopt(Cell(model))
    row = tree.find(model, root)
    assert row is not None
    assert (tree.rows[row].name, tree.rows[row].root) == ("inner", 1)


def wrapped_names(tree: ModuleTree) -> list[tuple[str, str]]:
    return [(row.name, row.class_name) for row in tree.rows]


MODULES = [("0", "Linear"), ("1", "Sequential"), ("1.0", "ReLU"), ("1.1", "Linear")]


def test_ddp_names() -> None:
    with rank_of(2):
        tree = adopted(DistributedDataParallel(small()))
    assert wrapped_names(tree) == [("", "DistributedDataParallel"), ("", "Sequential"), *MODULES]
    assert [row.wrapper for row in tree.rows][:3] == [True, False, False]


def test_torch_compile_names() -> None:
    compiled: Any = torch.compile(small())
    tree = adopted(compiled)
    assert wrapped_names(tree) == [("", "OptimizedModule"), ("", "Sequential"), *MODULES]
    assert tree.rows[0].wrapper


def test_checkpoint_wrapper_names() -> None:
    model = small()
    model[1] = checkpoint_wrapper(model[1])
    names = [row.name for row in adopted(model).rows]
    assert names == ["", "0", "1", "1", "1.0", "1.1"]


def test_fsdp2_classes_and_sizes() -> None:
    with rank_of(4):
        model = small()
        fully_shard(model, mesh=init_device_mesh("cpu", (4,), mesh_dim_names=("dp",)))
        tree = adopted(model)
    assert wrapped_names(tree) == [("", "Sequential"), *MODULES]
    assert tree.rows[0].total_params == 21


def test_user_class_named_fsdp() -> None:
    class FSDPThing(nn.Module):
        pass

    assert adopted(FSDPThing()).rows[0].class_name == "FSDPThing"


def test_attribute_named_as_in_a_wrapper() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(1, 1)

    rows = adopted(Holder()).rows
    assert (rows[0].wrapper, rows[1].name) == (False, "module")


def test_failing_and_long_extra_repr() -> None:
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


def test_new_modules_in_every_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distprof.model.module_tree.MAX_ROWS", 20)
    tree = adopted(small())
    kept = [small() for _ in range(10)]
    rows = [tree.adopt(model, parent=0) for model in kept]
    assert rows[:3] == [5, 10, 15] and rows[3:] == [-1] * 7
    assert len(tree.rows) <= 20 < MAX_ROWS


def test_module_inside_itself() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.loop = model
    rows: list[ModuleRow] = adopted(model).rows
    assert len(rows) < 10
    assert rows[0].total_params == 6


def test_lazy_parameters() -> None:
    """Lazy modules get their shapes in the first forward, when they are adopted."""
    rows = adopted(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))).rows
    assert [row.total_params for row in rows] == [8, 0, 8]


def test_remade_module_has_one_row_a_caller() -> None:
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


def test_remade_model_of_the_same_structure() -> None:
    tree = ModuleTree(FrameworkRegistry())
    assert [tree.adopt(nn.Linear(2, 2)) for _ in range(3)] == [0, 0, 0]
    assert tree.adopt(nn.Linear(2, 3)) == 1


def test_new_container_of_known_modules() -> None:
    model = small()
    tree = adopted(model)
    for _ in range(3):
        tree.adopt(nn.Sequential(model[0]), parent=0)
    assert [row.name for row in tree.rows[5:]] == ["<Sequential>", "<Sequential>.0"]
    assert tree.find(model[0], 0) == 1 and tree.find(model[0], 5) == 6


class CheckpointWrapper(nn.Module):
    """A wrapper with the name of torch's, of which FSDP 2 makes a subclass below."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._checkpoint_wrapped_module = inner


class FSDPCheckpointWrapper(CheckpointWrapper): ...


def test_wrapper_under_fsdp2() -> None:
    rows = adopted(nn.Sequential(FSDPCheckpointWrapper(nn.Sequential(nn.ReLU())))).rows
    assert [(row.name, row.wrapper) for row in rows] == [("", False), ("0", True), ("0", False), ("0.0", False)]


class _FabricModule(nn.Module):
    """Lightning Fabric's wrapper: it holds the module that the strategy wrapped, and the original."""

    def __init__(self, wrapped: nn.Module, original: nn.Module) -> None:
        super().__init__()
        self._forward_module, self._original_module = wrapped, original


def test_model_that_its_wrapper_holds_twice() -> None:
    model = small()
    rows = adopted(_FabricModule(CheckpointWrapper(model), model)).rows
    assert [(row.name, row.wrapper) for row in rows] == [
        ("", True), ("", True), ("", False), ("0", False), ("1", False), ("1.0", False), ("1.1", False),
    ]  # fmt: skip
    assert [row.own_params for row in rows] == [0, 0, 0, 15, 0, 0, 6]


def test_module_that_holds_itself() -> None:
    model: Any = small()
    model.add_module("again", model)
    assert [row.name for row in adopted(model).rows] == ["", "0", "1", "1.0", "1.1"]
