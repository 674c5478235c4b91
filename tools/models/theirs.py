"""What DeepSpeed's flops profiler counts of one call of a model, function by function; what torch's counter does."""

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
    """By the name of torch's function."""

    flops: Counter[str] = field(default_factory=Counter)
    macs: Counter[str] = field(default_factory=Counter)


def count(model: nn.Module, inputs: Mapping[str, Tensor] | list[Tensor]) -> Counted:
    """DeepSpeed's ``get_model_profile`` of one forward.

    Raises ValueError where its functions do not add up to its total: then this page would tell stories.
    """
    counted = Counted()
    given: dict[str, Any] = {"args": inputs} if isinstance(inputs, list) else {"kwargs": dict(inputs)}
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with patch.object(deepspeed, "wrapFunc", _telling(counted)):
        total, macs, _ = deepspeed.get_model_profile(model, print_profile=False, warm_up=0, as_string=False, **given)
    if any(isinstance(module, tuple(deepspeed.MODULE_HOOK_MAPPING)) for module in model.modules()):
        counted.flops[RECURRENT] = total - counted.flops.total()
    if (counted.flops.total(), counted.macs.total()) != (total, macs):
        raise ValueError(f"DeepSpeed counts {total} flops and {macs} MACs, its functions {counted}")
    return counted


def _telling(counted: Counted) -> Callable[..., Any]:
    """DeepSpeed's own ``wrapFunc``, of formulas that also tell ``counted`` what they gave.

    Torch's meta kernels call torch again: a Linear's calls addmm, which DeepSpeed has patched, too.  What runs inside
    of a patched function is not counted once more.
    """
    wrap, running = deepspeed.wrapFunc, [False]

    def tell(function: Any, formula: Callable[..., tuple[int, int]]) -> Any:
        def told(*args: Any, **kwargs: Any) -> tuple[int, int]:
            flops, macs = formula(*args, **kwargs)
            if deepspeed.module_flop_count:  # else DeepSpeed does not count it
                counted.flops[function.__name__] += flops
                counted.macs[function.__name__] += macs
            return flops, macs

        wrapped = wrap(function, told)

        def outermost(*args: Any, **kwargs: Any) -> Any:
            if running[0]:
                return function(*args, **kwargs)
            running[0] = True
            try:
                return wrapped(*args, **kwargs)
            finally:
                running[0] = False

        outermost.__str__ = function.__str__  # type: ignore[method-assign]  # by which DeepSpeed finds the original
        return outermost

    return tell


def count_by_torch(call: Callable[[], object]) -> int:
    """Flops of FlopCounterMode."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
