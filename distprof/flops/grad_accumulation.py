"""Tells autograd's own sums of gradients from what its nodes compute.

Where a tensor is used twice, its gradients come from two nodes and the engine adds them up, as part of the evaluation
of the later one: nothing that Python is told tells such an ``add`` from one of the node's own.  Three things do.  The
engine itself calls it, and no Python code of a hook or of a custom function.  It adds to what another node gave before,
where a node's formula adds up what it has made itself.  And where a node gives two gradients to one tensor (``h * h``),
two of its edges are the same.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from distprof.flops.long_graphs import FREED_BY_RECURSION, keep_edges

_ADDS = frozenset({torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor})
_PythonNode: Any = torch._C._FunctionBase
#: What lies between an op and its dispatch to us.
_BETWEEN = ("distprof.", "torch._dynamo.", "torch._compile")


class GradAccumulation:
    """Follows the nodes that one thread evaluates."""

    def __init__(self) -> None:
        self._node: Any = None
        self._nodes = 0  # that were evaluated so far
        self._made: set[int] = set()  # addresses of the tensors that its evaluation has made so far

    def saw(self, node: Any, func: Any, args: Any, result: Any) -> bool:
        """An op has run in the evaluation of ``node``; returns whether it was a sum of the engine's."""
        if node is not self._node:
            self._node = node
            self._made.clear()
            self._nodes += 1
            if self._nodes > FREED_BY_RECURSION:
                keep_edges(node)
        if func in _ADDS and self._is_engines(node, args[0]):
            return True
        if isinstance(result, torch.Tensor):
            self._made.add(result._cdata)
        elif isinstance(result, (tuple, list)):
            self._made.update(one._cdata for one in result if isinstance(one, torch.Tensor))
        return False

    def forget(self) -> None:
        """Keep no node alive."""
        self._node = None

    def _is_engines(self, node: Any, to: torch.Tensor) -> bool:
        """Whether the engine calls an op that adds to this tensor."""
        if not _called_by_engine():
            return False
        if isinstance(node, _PythonNode) or to._cdata not in self._made:
            return True
        edges = [edge for edge in node.next_functions if edge[0] is not None]
        return len(set(edges)) < len(edges)


def _called_by_engine() -> bool:
    """Whether no Python code runs between autograd's engine and the op that is dispatched now."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame = frame.f_back
    return frame is None or frame.f_code.co_name == "_engine_run_backward"
