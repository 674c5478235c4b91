"""Looks into packages that the script has imported; imports nothing itself."""

from __future__ import annotations

import operator
import sys
from typing import Any


def imported(module: str, attribute: str) -> Any:
    """Returns ``attribute`` of a module that the script has imported; None if either is missing."""
    return getattr(sys.modules.get(module), attribute, None)


def is_a(thing: object, module: str, *classes: str) -> bool:
    """Whether ``thing`` is an instance of one of the ``classes`` of a module that the script has imported."""
    found = tuple(cls for name in classes if isinstance(cls := imported(module, name), type))
    return bool(found) and isinstance(thing, found)


def group_ranks(group: Any) -> tuple[int, ...]:
    """Returns the global ranks of a process group, in its order; empty if this process is not in it."""
    ranks = imported("torch.distributed.distributed_c10d", "_world")
    members = ranks.pg_group_ranks.get(group) if ranks is not None and group is not None else None
    if not members:
        return ()
    in_order = all(map(operator.eq, members.values(), range(len(members))))  # as torch makes them
    return tuple(members) if in_order else tuple(sorted(members, key=members.__getitem__))
