"""A module patch whose handlers go through the compiled fast path."""

from __future__ import annotations

from typing import Any

import torch

from distprof.hooks.module_calls import ModuleCallHandler, ModuleCallPatch
from distprof.probes.timing import fast_path


class PatchWithFastPath(ModuleCallPatch):
    """Wraps each handler in the compiled fast path, which makes the calls itself."""

    def open(self, handler: ModuleCallHandler) -> None:
        lists: dict[str, Any] = {name: [] for name in ("stack", "entered", "owners", "timestamps", "in_backward")}
        around = fast_path.compiled.FastPath(
            timer=handler,
            row_of={},
            **lists,
            now=None,
            hooked=[-1],
            ended={},
            entering={},
            leaving={},
            hooks={},
            plain=torch.Tensor,
            is_grad_enabled=torch.is_grad_enabled,
            forward_only=fast_path.plain_forward(),
            failed=self._on_error,
        )
        super().open(around)
