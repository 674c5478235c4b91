"""Peak memory of this rank so far, without touching the user's own statistics."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import torch

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes


def peak_memory(device: str) -> tuple[Callable[[], int], str]:
    """A function that reads the peak in bytes, and where it comes from: CUDA's allocator, else the resident set."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated, "allocator"
    return _peak_rss, "rss"


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
