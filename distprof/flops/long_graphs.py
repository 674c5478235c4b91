"""Keeps torch from freeing long graphs by recursion, which ends in a segmentation fault.

torch frees a graph of autograd node by node, in a loop.  A node that Python has looked at (as ``grad_fn``, or as the
one that is evaluated) belongs to its Python object from then on, and frees what lies below it from inside of its own
end: a path of some 40,000 such nodes overflows the stack.  Where a node's edges are kept in a dict of its own, they end
with that dict, and Python frees nested containers in a loop, too.
"""

from __future__ import annotations

import contextlib
from typing import Any

from distprof.hooks.dynamo import hidden_from_dynamo

#: So many nodes of a step may be freed by recursion: 200 bytes of stack each.
FREED_BY_RECURSION = 2_000

_KEY = "distprof"


@hidden_from_dynamo
def keep_edges(node: Any) -> None:
    """Of a node that Python looks at: no longer than the node itself, and only what it keeps anyway."""
    with contextlib.suppress(AttributeError, RuntimeError):
        node.metadata[_KEY] = node.next_functions
