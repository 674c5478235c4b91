"""The parallel axes of a job, and a rank's coordinates on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar

from distprof.plain import dataclass
from distprof.records.fields import Index, Size

#: Axes of parallelism, in the order in which they are shown.  ``mp`` is derived: tp x pp.
AXES = ("dp", "tp", "pp", "cp", "ep")
#: Axes whose sizes multiply to the world size; experts are spread over ranks that these place.
WORLD_AXES = ("dp", "cp", "tp", "pp")
#: Sources of axes that are no framework's: the script itself, what torch shows, and nothing.
DECLARED, DEVICE_MESH, PROCESS_GROUPS, PARAMETERS = "declared", "device_mesh", "process_groups", "parameters"
ASSUMED = "assumed"


def expert_position(place: Mapping[str, int], sizes: Mapping[str, int]) -> tuple[tuple[int, int], int]:
    """Returns (the ep group of a rank, its coordinate in it) from its coordinates on the other axes.

    The ranks of an ep group are neighbours on dp x cp; on dp x cp x tp where dp x cp alone is smaller than ep.
    """
    number = place["dp"] * sizes["cp"] + place["cp"]
    if sizes["ep"] > sizes["dp"] * sizes["cp"]:
        number = number * sizes["tp"] + place["tp"]
        return (place["pp"], number // sizes["ep"]), number % sizes["ep"]
    return (place["pp"] * sizes["tp"] + place["tp"], number // sizes["ep"]), number % sizes["ep"]


@dataclass(frozen=True)
class Mesh:
    """A DeviceMesh: dimension names, shape, and this rank's coordinate in it (empty: not in it)."""

    names: tuple[str, ...]
    shape: tuple[Size, ...]
    coordinate: tuple[Index, ...] = ()


@dataclass(frozen=True)
class Group:
    """A process group of this rank: torch's name for it, its description, and its ranks in group order (empty: all)."""

    name: str
    description: str = ""
    ranks: tuple[Index, ...] = ()
    backend: str = ""  # as torch names it: gloo, nccl, cpu:gloo,cuda:nccl; empty in older shards


@dataclass(frozen=True)
class Stage:
    """A model of this rank that is one stage of a pipeline; a rank may hold several (virtual stages)."""

    root: Index
    index: Index  # among all stages of the pipeline
    count: Size  # of all stages


@dataclass(frozen=True)
class OwnAxes:
    """A model of this rank on meshes with other axes than those in :class:`Topology`."""

    root: Index
    sizes: dict[str, Size]
    coordinates: dict[str, Index]


@dataclass(frozen=True)
class Topology:
    """Sizes of the parallel axes and this rank's coordinates on them.  The last one of a shard is valid.

    ``sizes`` and ``coordinates`` have the same keys: :data:`AXES` and ``mp``, and where known the parts of dp
    (``dp_replicate``, ``dp_shard``), ``sp`` (sequence parallel over separate ranks), ``etp`` and ``edp`` (tensor and
    data parallel of experts), and ``ep_size_N`` for each N where experts are of several ep sizes (then ``ep`` is
    the largest).  ``sources`` has the source of each axis, ``source`` the most frequent one: ``declared`` (by the
    script), a framework, ``device_mesh`` (names of dimensions), ``process_groups`` (descriptions), ``parameters``
    (their layout) or ``assumed``.
    """

    KIND: ClassVar[str] = "topology"
    source: str
    sizes: dict[str, Size]
    coordinates: dict[str, Index]
    meshes: tuple[Mesh, ...] = ()
    notes: tuple[str, ...] = ()  # sentences for the report, such as two sources that disagree
    sources: dict[str, str] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    stages: tuple[Stage, ...] = ()
    roots: tuple[OwnAxes, ...] = ()  # models on meshes with other axes
