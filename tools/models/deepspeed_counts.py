"""The counts of DeepSpeed's flops profiler for one call of a model, by function; and those of torch's counter."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

os.environ.setdefault("DS_ACCELERATOR", "cpu")
from deepspeed.profiling.flops_profiler import profiler as deepspeed

RECURRENT = "recurrent layers"


@dataclass
class Counted:
    """Flops and MACs by the name of torch's function."""

    flops: Counter[str] = field(default_factory=Counter)
    macs: Counter[str] = field(default_factory=Counter)


def count(model: nn.Module, inputs: Mapping[str, Tensor] | list[Tensor]) -> Counted:
    """Returns what DeepSpeed's ``get_model_profile`` counts in one forward.

    Raises ValueError if its functions do not add up to its total.
    """
    counted = Counted()
    given: dict[str, Any] = {"args": inputs} if isinstance(inputs, list) else {"kwargs": dict(inputs)}
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with patch.object(deepspeed, "wrapFunc", _recording_wrap(counted)):
        total, macs, _ = deepspeed.get_model_profile(model, print_profile=False, warm_up=0, as_string=False, **given)
    if any(isinstance(module, tuple(deepspeed.MODULE_HOOK_MAPPING)) for module in model.modules()):
        counted.flops[RECURRENT] = total - counted.flops.total()
    if (counted.flops.total(), counted.macs.total()) != (total, macs):
        raise ValueError(f"DeepSpeed counts {total} flops and {macs} MACs, its functions {counted}")
    return counted


def _recording_wrap(counted: Counted) -> Callable[..., Any]:
    """Returns DeepSpeed's ``wrapFunc`` for formulas whose results are also added to ``counted``.

    Torch's meta kernels call torch again: the kernel of a Linear calls addmm, which DeepSpeed has patched too.  Calls
    inside a patched function are not counted again.
    """
    wrap, running = deepspeed.wrapFunc, [False]

    def wrap_function(function: Any, formula: Callable[..., tuple[int, int]]) -> Any:
        def recorded(*args: Any, **kwargs: Any) -> tuple[int, int]:
            flops, macs = formula(*args, **kwargs)
            if deepspeed.module_flop_count:  # otherwise DeepSpeed does not count it
                counted.flops[function.__name__] += flops
                counted.macs[function.__name__] += macs
            return flops, macs

        wrapped = wrap(function, recorded)

        def outermost(*args: Any, **kwargs: Any) -> Any:
            if running[0]:
                return function(*args, **kwargs)
            running[0] = True
            try:
                return wrapped(*args, **kwargs)
            finally:
                running[0] = False

        outermost.__str__ = function.__str__  # type: ignore[method-assign]  # DeepSpeed finds the original by it
        return outermost

    return wrap_function


def count_by_torch(call: Callable[[], object]) -> int:
    """Returns the flops that torch's FlopCounterMode counts."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
