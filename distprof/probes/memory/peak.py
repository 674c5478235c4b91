"""The peak memory of this rank so far, read without resetting the user's statistics."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import torch

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes


def peak_memory(device: str) -> tuple[Callable[[], int], str]:
    """Returns a function that reads the peak in bytes, and its source: CUDA's allocator, else the resident set."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated, "allocator"
    return _peak_rss, "rss"


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
