"""One tree for the job: what is the same module, in which order the union stands, and what modules are called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.job.module_union import ModuleUnion
from distprof.merge.load.module_tree import RankTree
from distprof.records import ModuleRow


def tree(*modules: str, root_class: str = "GPT", root: int = 0) -> RankTree:
    """Rows for dotted names, parents first; ``name:Class`` sets a class (else M), ``name!Class`` makes a wrapper."""
    rows = [ModuleRow("", root_class, root, -1, 0)]
    place = {"": 0}
    for text in modules:
        wrapper = "!" in text
        name, _, class_name = text.replace("!", ":").partition(":")
        parent = place.get(name, place[name.rpartition(".")[0]])
        rows.append(ModuleRow(name, class_name or "M", root, parent, rows[parent].depth + 1, wrapper=wrapper))
        place[name] = len(rows) - 1
    return RankTree(tuple(rows))


def joined(*trees: RankTree) -> RankTree:
    """Several models on one rank."""
    rows: list[ModuleRow] = []
    for one in trees:
        first = len(rows)
        rows += [
            ModuleRow(
                r.name, r.class_name, r.root, r.parent + first if r.parent >= 0 else -1, r.depth, wrapper=r.wrapper
            )
            for r in one.rows
        ]
    return RankTree(tuple(rows))


def labels(*trees: RankTree) -> list[str]:
    return [module.label for module in ModuleUnion(trees).modules]


# ---- the union -------------------------------------------------------------------------------------------------------


def test_equal_trees_are_one() -> None:
    assert labels(tree("a", "a.b"), tree("a", "a.b")) == ["GPT", "a", "a.b"]


def test_pipeline_stages_stand_in_the_order_of_the_model() -> None:
    first = tree("embed", "layers", "layers.0", "layers.1")
    last = tree("layers", "layers.2", "layers.3", "norm", "head")
    assert labels(first, last) == [
        "GPT", "embed", "layers", "layers.0", "layers.1", "layers.2", "layers.3", "norm", "head",
    ]  # fmt: skip


def test_interleaved_stages_are_sorted_by_number() -> None:
    one, other = tree("layers", "layers.0", "layers.10"), tree("layers", "layers.2", "layers.11")
    assert labels(one, other)[2:] == ["layers.0", "layers.2", "layers.10", "layers.11"]


def test_an_earlier_sibling_of_a_later_rank_goes_before_what_follows_it() -> None:
    assert labels(tree("layers"), tree("embed", "layers")) == ["GPT", "embed", "layers"]


def test_the_same_name_with_another_class_is_another_module() -> None:
    modules = ModuleUnion([tree("ffn:MLP"), tree("ffn:MoE")]).modules
    assert [(module.label, module.row.class_name) for module in modules[1:]] == [("ffn", "MLP"), ("ffn #2", "MoE")]


def test_parents_and_depths_are_those_of_the_union() -> None:
    modules = ModuleUnion([tree("a", "a.x"), tree("a", "a.y", "b")]).modules
    assert [(module.label, module.parent, module.depth) for module in modules] == [
        ("GPT", -1, 0), ("a", 0, 1), ("a.x", 1, 2), ("a.y", 1, 2), ("b", 0, 1),
    ]  # fmt: skip


def test_stack_puts_values_at_their_module_and_nan_elsewhere() -> None:
    one, other = tree("a"), tree("b", "b.c")
    alignment = ModuleUnion([one, other, one])
    values = [np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])]
    table = alignment.stack([*(np.stack([own, 10 * own]).astype(np.float32) for own in values), None], 2)
    for by_module, factor in zip(table, (1.0, 10.0), strict=True):
        found = {
            module.label: row for module, row in zip(alignment.modules, (by_module / factor).tolist(), strict=True)
        }
        assert str(found["GPT"]) == "[1.0, 3.0, nan]"
        assert str(found["a"]) == "[2.0, nan, nan]"
        assert str(found["b.c"]) == "[nan, 5.0, nan]"


names = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@given(st.lists(names, min_size=1, max_size=5))
def test_the_union_holds_every_module_once_and_keeps_agreed_orders(orders: list[list[str]]) -> None:
    whole = sorted({name for order in orders for name in order})
    kept = [[name for name in whole if name in order] for order in orders]  # all ranks agree on one order
    found = labels(*(tree(*order) for order in kept))[1:]
    assert sorted(found) == whole
    for order in kept:
        assert [name for name in found if name in order] == order


@given(st.lists(names, min_size=1, max_size=5))
def test_the_set_of_modules_does_not_depend_on_the_order_of_ranks(orders: list[list[str]]) -> None:
    trees = [tree(*order) for order in orders]
    assert sorted(labels(*trees)) == sorted(labels(*reversed(trees)))


@given(st.lists(st.permutations("abcd"), min_size=2, max_size=3))
def test_ranks_that_contradict_each_other_still_give_every_module_once(orders: list[list[str]]) -> None:
    assert sorted(labels(*(tree(*order) for order in orders))[1:]) == ["a", "b", "c", "d"]


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (tree("blocks", "blocks.3", "blocks.3.moe"), ["GPT", "blocks", "blocks.3", "blocks.3.moe"]),
        (tree(":GPT", "a", root_class="DDP"), ["DDP", "GPT", "a"]),
        (tree("a!OptimizedModule", "a:Block"), ["GPT", "a (OptimizedModule)", "a"]),
        (
            joined(tree("a", root_class="Generator"), tree("a", root_class="Critic", root=1)),
            ["Generator", "Generator.a", "Critic", "Critic.a"],
        ),
        (
            joined(tree("a", root_class="Net"), tree("a", root_class="Net", root=1)),
            ["Net#0", "Net#0.a", "Net#1", "Net#1.a"],
        ),
        (tree("a!Wrap", "a!Wrap", "a:Block"), ["GPT", "a (Wrap)", "a (Wrap) #2", "a"]),
    ],
)
def test_labels(found: RankTree, expected: list[str]) -> None:
    assert labels(found) == expected


def test_a_wrapper_around_one_of_two_models_names_its_model() -> None:
    wrapped = RankTree(
        (
            ModuleRow("", "DDP", 0, -1, 0, wrapper=True),
            ModuleRow("", "Generator", 0, 0, 1),
            ModuleRow("a", "M", 0, 1, 2),
            ModuleRow("", "Critic", 1, -1, 0),
        )
    )
    assert labels(wrapped) == ["Generator (DDP)", "Generator", "Generator.a", "Critic"]


def test_losses_and_transforms_without_parameters_put_no_prefix_before_the_models_names() -> None:
    rows = (
        ModuleRow("", "Net", 0, -1, 0, total_params=9),
        ModuleRow("conv2", "Conv2d", 0, 0, 1, own_params=9, total_params=9),
        ModuleRow("", "Compose", 1, -1, 0),
        ModuleRow("0", "Normalize", 1, 2, 1),
        ModuleRow("", "MSELoss", 2, -1, 0),
    )
    assert labels(RankTree(rows)) == ["Net", "conv2", "Compose", "Compose.0", "MSELoss"]


@given(st.lists(st.tuples(st.sampled_from(["", "a", "a.b"]), st.sampled_from(["X", "Y"]), st.booleans()), max_size=6))
def test_labels_are_unique_whatever_a_rank_calls_its_modules(modules: list[tuple[str, str, bool]]) -> None:
    rows = [ModuleRow("", "Root", 0, -1, 0)]
    rows += [ModuleRow(name, class_name, 0, 0, 1, wrapper=wrapper) for name, class_name, wrapper in modules]
    found = labels(RankTree(tuple(rows)))
    assert len(set(found)) == len(found) == len(rows)


def test_models_are_called_as_what_holds_them_calls_them() -> None:
    rows = (
        ModuleRow("", "Sequential", 0, -1, 0, total_params=9),
        ModuleRow("0", "Linear", 0, 0, 1, total_params=9),
        ModuleRow("", "Linear", 1, -1, 0, total_params=9),
        ModuleRow("", "Linear", 2, -1, 0, total_params=9),
        ModuleRow("", "Linear", 3, -1, 0, total_params=9),
    )
    held_as = {0: "Agent.network", 1: "Agent.actor", 2: "Agent.actor"}
    found = ModuleUnion([RankTree(rows)], held_as=held_as).modules
    assert [module.label for module in found] == [
        "Agent.network", "Agent.network.0", "Agent.actor#1", "Agent.actor#2", "Linear",
    ]  # fmt: skip
