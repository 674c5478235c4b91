"""Compiled regions and CUDA graphs: the losses stay those of the plain run, and compiled work is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gpu.finding import Finding, equal, needs_gpu
from gpu.training import train, train_recorded

_WIDTH, _ROWS, _LAYERS = 256, 64, 3
#: Changes a model before it is trained.
_Prepare = Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]


def _eager(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    return model


def _compiled(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    compiled: Callable[[Tensor], Tensor] = torch.compile(model)
    return compiled


def _compiled_graphs(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    compiled: Callable[[Tensor], Tensor] = torch.compile(model, mode="reduce-overhead")
    return compiled


def _captured(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    captured: Any = torch.cuda.make_graphed_callables(model, (x,))
    return captured  # type: ignore[no-any-return]


_FORMS: dict[str, _Prepare] = {
    "eager": _eager,
    "torch.compile": _compiled,
    "torch.compile, reduce-overhead": _compiled_graphs,
    "make_graphed_callables": _captured,
}


def compiled(device: torch.device) -> list[Finding]:
    rows = []
    for name, prepare in _FORMS.items():
        if device.type == "cuda" or prepare in (_eager, _compiled):
            rows += _compare(name, prepare, device)
        else:
            rows += needs_gpu(name)
    return rows


def _compare(name: str, prepare: _Prepare, device: torch.device) -> list[Finding]:
    plain, recorded = (_training(prepare, device) for _ in range(2))
    expected = train(*plain)
    losses, report = train_recorded(*recorded, count_eager=True)
    rows = [equal(f"{name}: losses are those of the plain run, bit for bit", losses == expected, True)]
    if prepare is not _captured:  # a captured graph runs no op: n/a is right there
        # One forward; every layer has the gradient of its weight, and all but the first that of its input.
        work = [row.macs for row in report.modules if row.parent < 0]
        rows.append(equal(f"{name}: MACs of the forward", work, [float(_LAYERS * _ROWS * _WIDTH**2)]))
    return rows


def _training(prepare: _Prepare, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    layers = [layer for _ in range(_LAYERS) for layer in (nn.Linear(_WIDTH, _WIDTH), nn.GELU())]
    model = nn.Sequential(*layers).to(device)
    x = torch.randn(_ROWS, _WIDTH, device=device)
    call = prepare(model, x)
    return model, lambda: call(x).square().mean()
