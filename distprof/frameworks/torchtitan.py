"""torchtitan: its MoE layers.  The names of its mesh dimensions show its axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from distprof.frameworks.protocol import Experts, Framework
from distprof.frameworks.routing_readers import read_counts
from distprof.frameworks.stacked_experts import stacked_experts


class TorchTitan(Framework):
    name = "torchtitan"
    package = "torchtitan"

    def experts(self, module: nn.Module) -> Experts | None:
        """Returns the experts of a ``MoE``, which are ``routed_experts.inner_experts`` (before 0.3: ``experts``).

        Their arguments are the tokens from all ranks, and the number of tokens of each local expert.
        """
        router: Any = getattr(module, "router", None)
        routed = getattr(module, "routed_experts", None)
        holder = getattr(routed, "inner_experts", None) if routed is not None else getattr(module, "experts", None)
        if router is None or not isinstance(holder, nn.Module):
            return None
        found = stacked_experts(holder, int(getattr(router, "top_k", 0) or 0), router)
        return None if found is None else replace(found, read_handed=None, read_processed=read_counts)
