"""Keeps torch from freeing long graphs by recursion, which ends in a segmentation fault.

torch frees autograd's graph node by node, in a loop.  But a node that Python code has accessed (as ``grad_fn``, or as
the present node) belongs to its Python object from then on, and frees the nodes below it within its own destructor: a
path of about 40,000 such nodes overflows the stack.  If a node's edges are also in its own ``metadata`` dict, they are
freed with that dict, and Python frees nested containers in a loop.
"""

from __future__ import annotations

import contextlib
from typing import Any

from distprof.hooks.dynamo import hidden_from_dynamo

#: The number of nodes of a step that may be freed by recursion, at 200 bytes of stack each.
FREED_BY_RECURSION = 2_000

_KEY = "distprof"


@hidden_from_dynamo
def keep_edges(node: Any) -> None:
    """Keeps a node's edges in its own dict: they live no longer than the node, which refers to them anyway."""
    with contextlib.suppress(AttributeError, RuntimeError):
        node.metadata[_KEY] = node.next_functions
