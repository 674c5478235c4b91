"""The models that a rank ran: their modules, and their parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distprof.records.fields import Index, Natural, Row

#: What a parameter is, for sums by kind.  ``shared``: of an expert that sees every token.
DENSE, EXPERT, SHARED, ROUTER, EMBEDDING = "dense", "expert", "shared", "router", "embedding"
KINDS = (DENSE, EXPERT, SHARED, ROUTER, EMBEDDING)


@dataclass(frozen=True)
class ModuleRow:
    """One module of the tree.

    ``name`` is the model's own (wrappers such as DDP's ``module.`` stripped), empty for a root; ``root`` numbers the
    models found running.  ``own_params`` / ``total_params`` count a rank's parameters with data-parallel sharding
    undone, each parameter once within a subtree.  ``wrapper``: it only wraps the module below (DDP, torch.compile).
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
    """Rows of the module tree, numbered from ``first_row`` on.  A model met later appends another record."""

    KIND: ClassVar[str] = "tree"
    first_row: Index
    rows: tuple[ModuleRow, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of one model, in three sizes.

    ``local_numel`` lies in this rank's memory; ``rank_numel`` is this rank's with data-parallel sharding (FSDP) undone,
    the base of "params per GPU"; ``global_numel`` is the whole of the piece named by ``name`` and by this rank's
    coordinates on the axes in ``split`` (on which ranks hold *different* parameters under one name: experts on ``ep``).
    ``tied_to`` is the name of the parameter of which this is the same object, or empty.

    Its layout: ranks along the axes in ``sharded`` hold pieces of it (``dp`` for FSDP and ZeRO-3), along those in
    ``split`` different parameters, along all others the same.  Ranks of other pipeline stages hold different
    parameters under one name, unless both say the same ``shared_as``: copies of one that are kept alike.

    ``kept_alike``: it lies in a wrapper (DDP, FSDP), which sees to it that data-parallel ranks hold the same.
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
    """All parameters of one root.  The last one of a root holds.

    ``held_as``: of one of several models that are parts of a module of which the script calls methods only, that
    module's class and its name there: ``Agent.actor``.

    Of too many for one record, each has those from number ``first`` on, and they follow one another to ``total``.
    """

    KIND: ClassVar[str] = "parameters"
    root: Index
    parameters: tuple[Parameter, ...]
    held_as: str = ""
    first: Natural = 0
    total: Natural = 0  # 0: these are all
