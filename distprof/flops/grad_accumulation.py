"""Distinguishes autograd's own sums of gradients from the ops of its nodes.

If a tensor is used twice, its gradients come from two nodes, and the engine adds them during the evaluation of the
later node.  torch does not mark such an ``add``; three signs distinguish it from one of the node's own.  The engine
itself calls it, not Python code of a hook or of a custom function.  It adds to the result of an earlier node, where a
node's own formula adds to tensors that it has made itself.  And if a node gives two gradients to one tensor
(``h * h``), two of its edges are equal.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from distprof.flops.long_graphs import FREED_BY_RECURSION, keep_edges

_ADDS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)  # no set: an op computes its hash in Python
_PythonNode: Any = torch._C._FunctionBase
#: Modules whose frames lie between an op's caller and the dispatch mode.
_DISPATCH_FRAMES = ("distprof.", "torch._dynamo.", "torch._compile")


class GradAccumulation:
    """Follows the nodes that one thread evaluates."""

    def __init__(self) -> None:
        self._node: Any = None
        self._nodes = 0  # evaluated so far
        self._made: set[int] = set()  # addresses of the tensors that the present node has made so far

    def record_op(self, node: Any, func: Any, args: Any, result: Any) -> bool:
        """Records that an op ran in the evaluation of ``node``; returns whether it was a sum by the engine."""
        if node is not self._node:
            self._node = node
            self._made.clear()
            self._nodes += 1
            if self._nodes > FREED_BY_RECURSION:
                keep_edges(node)
        if func in _ADDS and self._is_engine_sum(node, args[0]):
            return True
        if isinstance(result, torch.Tensor):
            self._made.add(result._cdata)
        elif isinstance(result, (tuple, list)):
            self._made.update(one._cdata for one in result if isinstance(one, torch.Tensor))
        return False

    def forget(self) -> None:
        """Drops the last node, so that it is not kept alive."""
        self._node = None

    def _is_engine_sum(self, node: Any, to: torch.Tensor) -> bool:
        """Whether an op that adds to the tensor ``to`` is the engine's own sum."""
        if not _called_by_engine():
            return False
        if isinstance(node, _PythonNode) or to._cdata not in self._made:
            return True
        edges = [edge for edge in node.next_functions if edge[0] is not None]
        return len(set(edges)) < len(edges)


def _called_by_engine() -> bool:
    """Whether the engine calls the op that is dispatched now, without Python code in between."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_DISPATCH_FRAMES):
        frame = frame.f_back
    return frame is None or frame.f_code.co_name == "_engine_run_backward"
