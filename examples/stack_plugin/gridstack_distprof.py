"""How distprof learns of a training stack of your own: one class, named as an entry point in ``pyproject.toml``.

``gridstack`` stands for your stack.  It lays ranks out on a grid, cuts the weights that it marks over a row of it, and
shares experts out over a column.  Nothing here imports it: distprof asks only in a process that has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from distprof.frameworks.protocol import Experts, Framework, ParameterLayout
from distprof.topology.imported import imported


class GridStack(Framework):
    name = "gridstack"  # in the report: who says so
    package = "gridstack"  # asked once the script has imported this

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        """By axis the global ranks of this rank's group, in the order of their coordinates."""
        grid: Any = imported("gridstack", "GRID")
        return {} if grid is None else {"tp": grid.row_of(rank), "dp": grid.column_of(rank), "ep": grid.column_of(rank)}

    def layout(self, owner: nn.Module, name: str, parameter: nn.Parameter, *, expert: bool) -> ParameterLayout | None:
        """A marked weight is one of as many equal pieces as a row has ranks; of others we know nothing."""
        pieces = getattr(parameter, "gridstack_pieces", 1)
        if pieces == 1:
            return None
        own = parameter.numel()
        return ParameterLayout(local_numel=own, rank_numel=own, global_numel=own * pieces, sharded=("tp",))

    def experts(self, module: nn.Module) -> Experts | None:
        """The rows of what each expert is called with are its load."""
        held: Any = getattr(module, "gridstack_experts", None)
        if held is None:
            return None
        return Experts(num_experts=module.gridstack_num_experts, modules=tuple(held), axis="ep")  # type: ignore[arg-type]
