"""Our own code in a hook that compiled code calls."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch._C._dynamo.eval_frame import set_eval_frame


def uncompiled(hook: Callable[..., None]) -> Callable[..., None]:
    """``hook``, kept from dynamo: what a compiled optimizer step calls it would otherwise compile, too.

    As torch.compiler.disable, but without loading the compiler into jobs that compile nothing.
    """

    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> None:
        before = set_eval_frame(None)
        try:
            hook(*args, **kwargs)
        finally:
            set_eval_frame(before)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]  # a quiet graph break
    return call
