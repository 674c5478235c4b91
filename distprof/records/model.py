"""The models that a rank ran: their modules, and their parameters."""

from __future__ import annotations

from typing import ClassVar

from distprof.plain import dataclass
from distprof.records.fields import Index, Natural, Row

#: The kind of a parameter, for sums by kind.  ``shared``: of an expert that processes every token.
DENSE, EXPERT, SHARED, ROUTER, EMBEDDING = "dense", "expert", "shared", "router", "embedding"
KINDS = (DENSE, EXPERT, SHARED, ROUTER, EMBEDDING)


@dataclass(frozen=True)
class ModuleRow:
    """One module of the tree.

    ``name`` is the name in the model (without wrappers such as DDP's ``module.``), empty for a root; ``root`` is the
    number of the model.  ``own_params`` / ``total_params`` count a rank's parameters without data-parallel sharding,
    each parameter once in a subtree.  ``wrapper``: it only wraps the module below it (DDP, torch.compile).
    """

    name: str
    class_name: str
    root: Index
    parent: Row  # row of the parent, -1 for a root
    depth: Index  # 0 for a root
    extra_repr: str = ""
    own_params: Natural = 0
    total_params: Natural = 0
    wrapper: bool = False


@dataclass(frozen=True)
class Tree:
    """Rows of the module tree, numbered from ``first_row`` on.  A model that runs later appends another record."""

    KIND: ClassVar[str] = "tree"
    first_row: Index
    rows: tuple[ModuleRow, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of one model, in three sizes.

    ``local_numel`` is the size in this rank's memory.  ``rank_numel`` is this rank's size without data-parallel
    sharding (FSDP), from which "params per GPU" is computed.  ``global_numel`` is the size of the whole parameter that
    has this ``name`` and this rank's coordinates on the axes in ``split``: on those, ranks hold *different* parameters
    under one name (experts on ``ep``).  ``tied_to`` is the name of the parameter that is the same object, or empty.

    The layout: ranks along the axes in ``sharded`` hold parts of the parameter (``dp`` for FSDP and ZeRO-3), ranks
    along those in ``split`` hold different parameters, and ranks along all other axes hold the same.  Ranks of other
    pipeline stages hold different parameters under one name, unless both have the same ``shared_as``: then they are
    copies.

    ``kept_alike``: a wrapper (DDP, FSDP) makes sure that data-parallel ranks hold the same values.
    """

    name: str
    row: Row
    root: Index
    local_numel: Natural
    rank_numel: Natural
    global_numel: Natural
    dtype: str
    itemsize: Natural
    trainable: bool = True
    split: tuple[str, ...] = ()
    tied_to: str = ""
    sharded: tuple[str, ...] = ()
    kind: str = DENSE
    shared_as: str = ""
    kept_alike: bool = False


@dataclass(frozen=True)
class Parameters:
    """All parameters of one root.  The last record of a root is valid.

    ``held_as``: the root is a part of a module that the script never calls as a whole; this is the class of that module
    and the root's name in it: ``Agent.actor``.

    Parameters that are too many for one record are in several, from number ``first`` on, ``total`` in all.

    ``evaluated``: the first forward of the root had no gradient, and no optimizer that stepped has a parameter of it.
    ``tied_roots``: the roots in which its tied parameters were first seen.
    """

    KIND: ClassVar[str] = "parameters"
    root: Index
    parameters: tuple[Parameter, ...]
    held_as: str = ""
    first: Natural = 0
    total: Natural = 0  # 0: these are all
    evaluated: bool = False
    tied_roots: tuple[Index, ...] = ()
