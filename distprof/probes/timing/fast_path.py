"""The visitor of the module door in timed steps: the module timer, behind a shortcut in C where that was compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable, MutableSequence
from functools import partial
from importlib import import_module
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._C._dynamo import eval_frame
from torch.nn.modules import module

from distprof.hooks.patches import ModuleCallHandler, OnError
from distprof.probes.timing.module_timer import CARRIER, ModuleTimer
from distprof.probes.timing.timeline import HostTimestamps
from distprof.records import Array

try:
    compiled: Any = import_module("distprof.probes.timing._fast_path")
except ImportError:  # no compiler where distprof was installed, or another Python than that one
    compiled = None

#: Modules of which most models are made, and whose forward calls torch's functions and nothing else: others may warn in
#: the name of a frame above theirs, which then has to be there.
_LEAVES = frozenset(
    {
        *(nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm2d),
        *(nn.Dropout, nn.Identity, nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid),
    }
)


def host_timestamps(mono_ns: Callable[[], int]) -> HostTimestamps:
    """Stamps of the host's clock, which read it themselves where they can."""
    if compiled is not None and mono_ns is perf_counter_ns and sys.platform == "linux":  # whose clock they know
        return _OwnClock(mono_ns)
    return HostTimestamps(mono_ns)


class _OwnClock(HostTimestamps):
    """Kept in rooms that are compiled, too."""

    def room(self) -> MutableSequence[int]:
        room: MutableSequence[int] = compiled.Stamps()
        return room

    def lengths_ns(self, stamps: Any) -> Array:
        return np.diff(np.frombuffer(stamps.tobytes(), np.int64))

    def low_words(self, stamps: Any) -> bytes:
        words: bytes = stamps.low_words()
        return words


def with_fast_path(timer: ModuleTimer, on_error: OnError) -> ModuleCallHandler:
    """What does the same as ``timer``; made on the thread that trains."""
    if compiled is None:
        return timer
    shared = {
        "stamps": timer.ledger.stamps,
        "now": timer.ledger.source.now,
        "owners": timer.ledger.owners,
        "in_backward": timer.interrupted,
    }
    timer.hooks.make = partial(compiled.Hook, failed=timer.hook_failed, **shared)
    visitor: ModuleCallHandler = compiled.Shortcut(
        timer=timer,
        row_of=timer.running.listener.tree.row_of,
        stack=timer.stack,
        entered=timer.entered,
        hooked=timer.hooked,
        ended=timer.ended,
        special={*timer.experts.entering, *timer.experts.leaving},
        hooks=timer.hooks,
        carrier=CARRIER,
        plain=torch.Tensor,
        is_grad_enabled=torch.is_grad_enabled,
        alone=plain_forward(),
        failed=on_error,
        **shared,
    )
    return visitor


def plain_forward() -> tuple[Any, ...] | None:
    """What tells when ``nn.Module._call_impl`` does no more than call ``forward``, for modules that cannot tell whether
    it did; None where torch has another ``_call_impl``.
    """
    hooks = tuple(f"_global_{name}_hooks" for name in ("backward_pre", "backward", "forward", "forward_pre"))
    own = ("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks")
    known = ("torch", "_C", "_get_tracing_state", "_slow_forward", "forward", *own, *hooks)
    impl, callback = nn.Module._call_impl, getattr(eval_frame, "get_eval_frame_callback", None)
    if callback is None or impl.__code__.co_names[: len(known)] != known:
        return None
    dicts = (getattr(module, name) for name in hooks)
    return torch._C._get_tracing_state, callback, *dicts, impl, _LEAVES
