"""The module door with visitors whose calls are made in C."""

from __future__ import annotations

from typing import Any

import torch

from distprof.hooks.patches import ModuleCallHandler, ModuleCallPatch
from distprof.probes.timing import fast_path


class AroundDoor(ModuleCallPatch):
    """Its visitors make the calls themselves, in C."""

    def open(self, visitor: ModuleCallHandler) -> None:
        lists: dict[str, Any] = {name: [] for name in ("stack", "entered", "owners", "stamps", "in_backward")}
        around = fast_path.compiled.Shortcut(
            timer=visitor,
            row_of={},
            **lists,
            now=None,
            hooked=[-1],
            ended={},
            special=set(),
            hooks={},
            carrier=torch.zeros(()),
            plain=torch.Tensor,
            is_grad_enabled=torch.is_grad_enabled,
            alone=fast_path.plain_forward(),
            failed=self._on_error,
        )
        super().open(around)
