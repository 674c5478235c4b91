"""Tests of the hooks that begin the backward of a module when a gradient arrives at a node."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.around import node_hooks
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from distprof.flops.long_graphs import FREED_BY_RECURSION
from distprof.native import extension
from distprof.probes.timing.node_hooks import NOBODY, NodeHooks, PythonNodeHooks

_New = Callable[[list[int]], NodeHooks]


def _in_python(began: list[int]) -> NodeHooks:
    return PythonNodeHooks(lambda owner, gradient: began.append(owner))


def _compiled(began: list[int]) -> NodeHooks:
    if extension.compiled is None:
        pytest.skip("the fast path could not be compiled")
    found: NodeHooks = node_hooks(owners=began, in_backward=[0])
    return found


@pytest.fixture(params=[_in_python, _compiled], ids=["in Python", "compiled"])
def new(request: pytest.FixtureRequest) -> _New:
    """Returns new hooks, which append the owners whose time begins to a list."""
    found: _New = request.param
    return found


def _times_two(x: Tensor) -> tuple[Tensor, Any]:
    y = x * 2
    assert y.grad_fn is not None
    return y, y.grad_fn


def _start() -> Tensor:
    return torch.ones(2, requires_grad=True)


def test_a_hook_is_registered_by_nothing_that_a_script_can_see(new: _New) -> None:
    """Neither a mode for ops, nor one for functions, nor torch's profiler: it is made in the middle of a forward."""
    seen: list[str] = []

    class Ops(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(op))
            return op(*args, **(kwargs or {}))

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(repr(function))
            return function(*args, **(kwargs or {}))

    began: list[int] = []
    hooks = new(began)
    y, node = _times_two(_start())
    with Ops(), Functions(), profile() as profiler:
        hooks.add(node, 3)
    assert not seen and not profiler.events()
    y.sum().backward()
    assert began == [~3]


def test_each_node_begins_the_row_that_was_added_first(new: _New) -> None:
    began: list[int] = []
    hooks = new(began)
    a, first = _times_two(_start())
    b, second = _times_two(a)
    c, third = _times_two(b)
    for node, row in ((third, 70), (first, 0), (second, NOBODY), (first, 5), (third, 6)):
        hooks.add(node, row)
    c.sum().backward()
    assert began == [~70, NOBODY, ~0]


def test_a_graph_may_outlive_its_step(new: _New) -> None:
    began: list[int] = []
    hooks = new(began)
    graphs = []
    for step in range(20):
        hooks.begin()
        y, node = _times_two(_start())
        hooks.add(node, step)
        z, later = _times_two(y)
        hooks.add(later, 100 + step)
        graphs.append(z)
    for step in (3, 19, 0):
        graphs[step].sum().backward()
    assert began == [~103, ~3, ~119, ~19, ~100, ~0]


def test_two_backwards_of_one_graph_begin_its_rows_twice(new: _New) -> None:
    began: list[int] = []
    hooks = new(began)
    y, node = _times_two(_start())
    hooks.add(node, 1)
    z, later = _times_two(y)
    hooks.add(later, 2)
    z.sum().backward(retain_graph=True)
    z.sum().backward()
    assert began == [~2, ~1] * 2


def test_the_hook_of_a_parameter_begins_its_owner(new: _New) -> None:
    began: list[int] = []
    x = _start()
    x.register_post_accumulate_grad_hook(new(began).hook(NOBODY))
    (x * 2).sum().backward()
    assert began == [NOBODY]


def test_nodes_of_a_long_graph_keep_their_edges(new: _New) -> None:
    """Without it, torch frees a long graph by a recursion that overflows the stack."""
    hooks = new([])
    y = _start()
    for number in range(FREED_BY_RECURSION + 2):
        y, node = _times_two(y)
        hooks.add(node, number)
    assert node.metadata
    hooks.begin()
    _, node = _times_two(_start())
    hooks.add(node, 0)
    assert not node.metadata


def test_hooks_are_freed_with_their_graph() -> None:
    if extension.compiled is None:
        pytest.skip("the fast path could not be compiled")

    class Owners(list[int]):
        pass

    owners = Owners()
    hooks = node_hooks(owners=owners)
    y, node = _times_two(_start())
    hooks.add(node, 1)
    gone = weakref.ref(owners)
    del hooks, owners
    gc.collect()
    assert gone() is not None  # the graph needs them
    del y, node
    gc.collect()
    assert gone() is None


def test_a_hook_outside_of_backward_of_the_window_begins_nothing() -> None:
    if extension.compiled is None:
        pytest.skip("the fast path could not be compiled")
    began: list[int] = []
    hooks = node_hooks(owners=began, in_backward=[])
    y, node = _times_two(_start())
    hooks.add(node, 1)
    y.sum().backward()
    assert not began


def test_wrong_rows_and_arguments_are_refused() -> None:
    if extension.compiled is None:
        pytest.skip("the fast path could not be compiled")
    hooks = node_hooks()
    _, node = _times_two(_start())
    for row in (-1, 1 << 31, (1 << 40) + 1):
        with pytest.raises(ValueError, match="no such row"):
            hooks.add(node, row)
    with pytest.raises(TypeError):
        hooks.add(node, "1")
    with pytest.raises(TypeError, match="add"):
        hooks.add(node)
    with pytest.raises(AttributeError):
        hooks.add(None, 1)
