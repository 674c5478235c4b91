"""The module door with visitors whose calls are made in C."""

from __future__ import annotations

from typing import Any

import torch

from distprof.doors import ModuleDoor, ModuleVisitor
from distprof.probes import shortcut


class AroundDoor(ModuleDoor):
    """Its visitors make the calls themselves, in C."""

    def open(self, visitor: ModuleVisitor) -> None:
        lists: dict[str, Any] = {name: [] for name in ("stack", "entered", "owners", "stamps", "in_backward")}
        around = shortcut.compiled.Shortcut(
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
            alone=shortcut.forward_alone(),
            failed=self._on_error,
        )
        super().open(around)
