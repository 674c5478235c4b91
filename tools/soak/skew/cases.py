"""The jobs that the skew part of the soak runs: an architecture, a planted fault, and the ranks that have it.

``everything()`` gives the listed cases.  The name of a case says what it is: ``fsdp2-fwd-w8-1a`` is FSDP2 with a slow
forward on 8 ranks, in round 1 of ranks and modules; a letter counts the repetitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

#: The end of the name of an architecture whose modules rest instead of computing, as those of a rank do whose work is
#: on a device of its own: its ranks do not wait for processors, even where there are few.
RESTING = "_rest"
#: The ranks in groups: tensor parallel in pairs, pipelines of two stages, where the architecture does not say four.
GROUPED = {"tp4": 4, "pp4": 4}
LAYERS = 4
RUN = "run"  # the run folder, in the folder of a case
#: Faults of which no rank is the culprit: none; in modules and ranks by chance; in each rank in its turn; in all ranks;
#: in all ranks, from nothing to the whole in equal steps.
HEALTHY = ("none", "jitter", "rotating", "everyone", "staircase")
#: Faults that a rank has in some of its steps only.
SOMETIMES = ("late", "flaky")
#: Faults that are also switched off and on again, after the window: what an iteration takes without them is known.
SWITCHED = (
    "fwd", "fwd_burn", "bwd", "bwd_burn", "data", "opt", "out", "spread", "gc", "uneven", "two", "pair", "both",
    "throttle", "halved",
)  # fmt: skip
#: Faults in one module of one rank, and the phase that shows them.
MODULE_FAULTS = {
    "fwd": "forward", "fwd_burn": "forward", "bwd": "backward", "bwd_burn": "backward", "gc": "forward",
    "two": "forward", "grow": "forward",
}  # fmt: skip
#: Faults in a phase outside modules.
PHASE_FAULTS = {"data": "data", "opt": "optimizer", "out": "other"}

_REPETITIONS = {"none": 3}
_MORE_MS = {"spread": 2}
#: The rank and the number of the module in each round, by world size.
_RANKS = {8: (5, 2, 7, 0), 4: (1, 3, 2), 16: (11,), 3: (2,), 2: (1,)}
_GPT = ("layers.1.ff", "layers.2.attn", "layers.0.ff.w1", "layers.3.ff")
_PIPELINE = ("layers.0.ff", "layers.0.attn", "layers.1.ff", "layers.1.attn")
_EXTRA = ("throttle", "halved", "out", "ckpt", "two", "half")


@dataclass(frozen=True)
class Architecture:
    """Its jobs: the modules that get a fault, what a fault costs in ms, and which faults are planted."""

    modules: tuple[str, ...]
    ms: float
    faults: tuple[str, ...]


_IN_MODULES = ("none", "fwd", "bwd")
_OF_DDP = (*_IN_MODULES, "fwd_burn", "bwd_burn", "data", "opt", "pause", "jitter", "uneven", "spread", "link")
_ARCHITECTURES = {
    "ddp_mlp": Architecture(("layers.2", "layers.4", "layers.0.w1", "layers.3"), 30, (*_OF_DDP, *_EXTRA)),
    "ddp_gpt": Architecture(_GPT, 30, (*_OF_DDP, "gc", *_EXTRA)),
    "fsdp2": Architecture(_GPT, 60, (*_IN_MODULES, "data", "opt", "jitter", "uneven", "spread", *_EXTRA)),
    "tp": Architecture(
        ("layers.1.ff", "layers.2.attn", "layers.0.attn", "layers.3.ff"), 60,
        (*_IN_MODULES, "data", "opt", "spread", "link", "uneven", "throttle", "halved", "out", "ckpt"),
    ),
    "pp": Architecture(_PIPELINE, 40, (*_IN_MODULES, "longstage", "link", "data", "throttle", "halved", "ckpt")),
    "pp1f1b": Architecture(_PIPELINE, 40, (*_IN_MODULES, "longstage")),
    "moe": Architecture(
        ("layers.2.ff", "layers.1.attn", "layers.0.ff", "layers.3.attn"), 30,
        (*_IN_MODULES, "hot", "data", "link", "spread", "opt", *_EXTRA),
    ),
    "conv": Architecture(("layers.2",), 30, ()),
    "lstm": Architecture(("layers.1",), 40, ()),
    "accum": Architecture(_GPT[:1], 60, ()),
    "zero1": Architecture(_GPT[:1], 40, ()),
    "local": Architecture(_GPT[:1], 30, ()),
    "hsdp": Architecture(_GPT[:1], 60, ()),
    "ring": Architecture(_GPT[:1], 60, ()),
    "tp4": Architecture(("layers.1.ff",), 60, ()),
    "pp4": Architecture(("layers.0.ff",), 60, ()),
    **{f"{name}{RESTING}": Architecture(_GPT[:1], 60, ()) for name in ("ddp_gpt", "fsdp2", "tp", "moe")},
    f"pp{RESTING}": Architecture(_PIPELINE[:1], 60, ()),
}  # fmt: skip
_RESTING = tuple(name for name in _ARCHITECTURES if name.endswith(RESTING))
#: Kinds beyond the list that the thresholds were chosen on: other architectures, numbers of ranks, and faults.
_OTHERS: dict[int, dict[str, tuple[str, ...]]] = {
    8: {
        **dict.fromkeys(("conv", "lstm", "accum", "zero1", "hsdp", "local", "ring", "tp4", "pp4"), ("none", "fwd")),
        "ddp_mlp": ("pair", "both", "grow", "late", "flaky", "gil", "nice", "rotating", "everyone", "staircase"),
        "ddp_gpt": ("pair", "both", "grow", "late", "flaky", "gil", "nice", "rotating", "everyone", "staircase"),
        "fsdp2": ("pair", "both", "grow", "gil", "rotating", "everyone", "staircase"),
        "moe": ("pair", "both", "rotating"),
        **dict.fromkeys(_RESTING, (*_IN_MODULES, "data", "opt", "out", "two", "pair")),
    },
    4: dict.fromkeys(_RESTING, (*_IN_MODULES, "data", "opt", "out")),
    16: {
        **dict.fromkeys(("ddp_gpt", "ddp_mlp", "moe"), ("none", "fwd", "bwd", "two", "pair", "opt")),
        "fsdp2": ("none", "fwd", "data"),
        "tp": ("none", "fwd"),
        "pp": ("none", "bwd"),
    },
    3: {"ddp_gpt": ("none", "fwd", "bwd", "spread")},
    2: {"ddp_gpt": ("none", "fwd", "bwd", "spread"), "fsdp2": ("none", "fwd")},
}


@dataclass(frozen=True)
class Case:
    """One job.  ``rank`` has the fault, unless :attr:`culprits` says that others have it too."""

    architecture: str
    fault: str
    ranks: int
    round: int
    repetition: int
    rank: int
    ms: float  # what the fault costs in an iteration
    module: str  # where a fault in a module is

    @property
    def name(self) -> str:
        return f"{self.architecture}-{self.fault}-w{self.ranks}-{self.round}{chr(ord('a') + self.repetition)}"

    @property
    def seed(self) -> int:
        return 10 * self.round + self.repetition

    @property
    def rests(self) -> bool:
        """Whether modules rest instead of computing."""
        return self.architecture.endswith(RESTING)

    @property
    def pipeline(self) -> bool:
        return self.architecture.startswith("pp")

    @property
    def grouped(self) -> int:
        """The ranks of a tensor-parallel group, or the stages of a pipeline."""
        return GROUPED.get(self.architecture, 2)

    @property
    def module_label(self) -> str:
        """The module as the report names it: layers of a pipeline are numbered through its stages."""
        if not self.pipeline:
            return self.module
        layers, number, *rest = self.module.split(".")
        stage = self.rank // (self.ranks // self.grouped)
        return ".".join([layers, str(int(number) + stage * LAYERS // self.grouped), *rest])

    @property
    def culprits(self) -> frozenset[int]:
        """The ranks that lose time by themselves; empty for healthy jobs, and where a group or a stage is slow."""
        if self.fault in (*HEALTHY, "link", "longstage"):
            return frozenset()
        if self.fault in ("two", "pair"):
            return frozenset({self.rank, (self.rank + self.ranks // 2 - 1) % self.ranks})
        if self.fault == "half":
            return frozenset(range(self.rank % 2, self.ranks, 2))
        if self.fault == "ckpt":
            return frozenset({0})
        if self.fault == "uneven" and self.architecture == "tp":
            return self._tensor_parallel_group
        return frozenset({self.rank})

    @property
    def slow_group(self) -> frozenset[int]:
        """The ranks of the group whose link is slow, if a link is."""
        if self.fault != "link":
            return frozenset()
        if self.architecture == "tp":
            return self._tensor_parallel_group
        if self.architecture == "moe":
            half = self.ranks // 2
            return frozenset(range(self.rank // half * half, self.rank // half * half + half))
        if self.pipeline:
            replicas = self.ranks // self.grouped
            return frozenset(range(self.rank % replicas, self.ranks, replicas))
        return frozenset(range(self.ranks))

    @property
    def _tensor_parallel_group(self) -> frozenset[int]:
        first = self.rank // self.grouped * self.grouped
        return frozenset(range(first, first + self.grouped))


def everything() -> list[Case]:
    """Returns all listed cases, round by round, so that the first ones hold every kind."""
    return list(_listed())


def matching(pattern: str) -> list[Case]:
    """Returns the cases whose names match, as a shell's pattern."""
    return [case for case in everything() if fnmatchcase(case.name, pattern)]


def _listed() -> Iterator[Case]:
    for number in range(max(map(len, _RANKS.values()))):
        for ranks, culprits in _RANKS.items():
            if number < len(culprits):
                yield from _round(number, ranks, culprits[number])


def _round(number: int, ranks: int, culprit: int) -> Iterator[Case]:
    for architecture, jobs in _ARCHITECTURES.items():
        others = _OTHERS.get(ranks, {}).get(architecture, ()) if number == 0 else ()
        for fault in (*(jobs.faults if ranks in (4, 8) else ()), *others):
            if fault in ("two", "half") and ranks < 8:
                continue
            for repetition in range(_REPETITIONS.get(fault, 1)):
                ms = jobs.ms * _MORE_MS.get(fault, 1)
                yield Case(architecture, fault, ranks, number, repetition, culprit, ms, jobs.modules[number])
