"""The handler of module calls in timed steps: the module timer, behind a fast path in C where that was compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable, MutableSequence
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._C._dynamo import eval_frame
from torch.nn.modules import module

from distprof.flops.long_graphs import keep_edges
from distprof.hooks.module_calls import ModuleCallHandler
from distprof.hooks.patches import OnError
from distprof.native import extension
from distprof.probes.timing.module_timer import ModuleTimer
from distprof.probes.timing.node_hooks import NOBODY, new_carrier
from distprof.probes.timing.timeline import CudaTimestamps, HostTimestamps, Timestamps
from distprof.records import Array

#: Common modules whose forward calls only torch's functions.  The forward of other modules may issue a warning for a
#: frame above its own, which then has to exist.
_LEAVES = frozenset(
    {
        *(nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm2d),
        *(nn.Dropout, nn.Identity, nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid),
    }
)


def host_timestamps(mono_ns: Callable[[], int]) -> HostTimestamps:
    """Returns timestamps of the host's clock, in a compiled buffer that reads the clock itself where possible."""
    if extension.compiled is not None and mono_ns is perf_counter_ns and sys.platform == "linux":
        return _CompiledTimestamps(mono_ns)
    return HostTimestamps(mono_ns)


def timestamps_on(device: str, mono_ns: Callable[[], int]) -> Timestamps:
    """Returns timestamps of the work on a device (torch's type of it)."""
    return CudaTimestamps(mono_ns) if device == "cuda" else host_timestamps(mono_ns)


class _CompiledTimestamps(HostTimestamps):
    """Keeps timestamps in the compiled buffer."""

    def buffer(self) -> MutableSequence[int]:
        buffer: MutableSequence[int] = extension.compiled.TimestampBuffer()
        return buffer

    def sums_ns(self, timestamps: Any, slots: bytes, size: int, long_ns: int) -> tuple[Array, list[int]]:
        sums, long = timestamps.sums(slots, size, long_ns)
        return np.frombuffer(sums, np.int64), long


def with_fast_path(timer: ModuleTimer, on_error: OnError) -> ModuleCallHandler:
    """Returns a handler that does the same as ``timer``, faster if compiled.  Call it on the thread that trains."""
    if extension.compiled is None:
        return timer
    tree = timer.running.listener.tree
    shared = {
        "timestamps": timer.timeline.timestamps,
        "now": timer.timeline.source.now,
        "owners": timer.timeline.owners,
        "in_backward": timer.interrupted,
    }
    if not isinstance(timer.nodes, extension.compiled.NodeHooks):
        timer.nodes = extension.compiled.NodeHooks(
            failed=timer.hook_failed,
            new_carrier=new_carrier,
            keep_edges=keep_edges,
            nobody=NOBODY,
            **shared,
        )
    handler: ModuleCallHandler = extension.compiled.FastPath(
        timer=timer,
        row_of=tree.row_of,
        changes=tree.changes,
        stack=timer.stack,
        entered=timer.entered,
        nodes=timer.nodes,
        ended=timer.ended,
        entering=timer.experts.entering,
        leaving=timer.experts.leaving,
        plain=torch.Tensor,
        is_grad_enabled=torch.is_grad_enabled,
        forward_only=plain_forward(),
        failed=on_error,
        **shared,
    )
    return handler


def plain_forward() -> tuple[Any, ...] | None:
    """Returns what the fast path checks before it calls ``forward`` in place of ``nn.Module._call_impl``; None where
    this torch has another ``_call_impl``.
    """
    hooks = tuple(f"_global_{name}_hooks" for name in ("backward_pre", "backward", "forward", "forward_pre"))
    own = ("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks")
    known = ("torch", "_C", "_get_tracing_state", "_slow_forward", "forward", *own, *hooks)
    impl, callback = nn.Module._call_impl, getattr(eval_frame, "get_eval_frame_callback", None)
    if callback is None or impl.__code__.co_names[: len(known)] != known:
        return None
    dicts = (getattr(module, name) for name in hooks)
    return torch._C._get_tracing_state, callback, *dicts, impl, _LEAVES
