"""A module patch whose handlers go through the compiled fast path."""

from __future__ import annotations

import time
from typing import Any

import torch

from distprof.flops.long_graphs import keep_edges
from distprof.hooks.module_calls import ModuleCallHandler, ModuleCallPatch
from distprof.native import extension
from distprof.probes.timing import fast_path
from distprof.probes.timing.node_hooks import NOBODY, new_carrier


def node_hooks(**parts: Any) -> Any:
    """Returns compiled hooks of nodes, as the fast path makes them but for ``parts``."""
    given = {
        "timestamps": [],
        "now": time.perf_counter_ns,
        "owners": [],
        "in_backward": [],
        "failed": None,
        "new_carrier": new_carrier,
        "keep_edges": keep_edges,
        "nobody": NOBODY,
    }
    return extension.compiled.NodeHooks(**{**given, **parts})


class PatchWithFastPath(ModuleCallPatch):
    """Wraps each handler in the compiled fast path, which makes the calls itself."""

    def open(self, handler: ModuleCallHandler) -> None:
        super().open(self.path(handler))

    def path(self, handler: Any, **parts: Any) -> Any:
        """Returns a fast path, with some parts other than empty ones."""
        lists: dict[str, Any] = {name: [] for name in ("stack", "entered", "owners", "timestamps", "in_backward")}
        given = {
            **lists,
            "changes": [0],
            "timer": handler,
            "row_of": {},
            "now": time.perf_counter_ns,
            "nodes": node_hooks(),
            "ended": {},
            "entering": {},
            "leaving": {},
            "plain": torch.Tensor,
            "is_grad_enabled": torch.is_grad_enabled,
            "forward_only": fast_path.plain_forward(),
            "failed": self._on_error,
        }
        return extension.compiled.FastPath(**{**given, **parts})
