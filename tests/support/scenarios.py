"""Reads the runs of scenarios of real stacks (``tests/stacks/jobs``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from distprof.merge.analyse import analyse
from distprof.merge.load.run import load_run
from distprof.merge.report import Report
from distprof.records import ExpertLayer, ExpertLayers, Parameter, Parameters, Record, Topology
from distprof.run_folder import RunFolder
from distprof.shard.reader import Shard, read_shard

Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True)
class Scenario:
    """The run of one scenario; ``whole`` is the number of parameters of its whole model, ``truth`` what it counted."""

    run: Path
    whole: int
    truth: Any = None

    @property
    def shards(self) -> list[Shard]:
        """Returns the shards in rank order."""
        return [read_shard(file) for file in sorted(RunFolder(self.run).shard_files())]

    @property
    def report(self) -> Report:
        return analyse(load_run(self.run))

    @property
    def topologies(self) -> list[Topology]:
        """Returns the last topology of each rank."""
        return [_all(shard, Topology)[-1] for shard in self.shards]

    @property
    def sizes(self) -> dict[str, int]:
        """Returns the sizes above 1, without mp; they must be the same on all ranks."""
        (sizes,) = {tuple(topology.sizes.items()) for topology in self.topologies}
        return {axis: size for axis, size in sizes if size > 1 and axis != "mp"}

    def places(self, *axes: str) -> list[tuple[int, ...]]:
        """Returns the coordinates of every rank on these axes."""
        return [tuple(topology.coordinates[axis] for axis in axes) for topology in self.topologies]

    def parameters(self, rank: int, root: int = 0) -> dict[str, Parameter]:
        """Returns the parameters of one model by name, by its last record."""
        records = [record for record in _all(self.shards[rank], Parameters) if record.root == root]
        return {parameter.name: parameter for parameter in records[-1].parameters}

    def expert_layers(self, rank: int) -> tuple[ExpertLayer, ...]:
        return _all(self.shards[rank], ExpertLayers)[-1].layers


def _all(shard: Shard, kind: type[Kind]) -> list[Kind]:
    return [record for record in shard.records if isinstance(record, kind)]


#: ``run_scenarios("on_deepspeed.py", ranks=4)``: by name
RunScenarios = Callable[..., dict[str, Scenario]]
