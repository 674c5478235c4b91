"""What makes a module of one rank the same module as one of another rank."""

from __future__ import annotations

from typing import NamedTuple


class ModuleName(NamedTuple):
    """A module of a rank, before its stage is looked at."""

    model: int
    name: str
    class_name: str
    number: int  # among those of one name and class on a rank, as in a wrapper of a module of its own class


class ModuleKey(NamedTuple):
    """A module of the job."""

    named: ModuleName
    stage: int  # where other stages have other modules of this name, else -1
