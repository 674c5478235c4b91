"""The profiler of one process, without launcher: DeepSpeed's flops profiler by name, arguments and output.

``FlopsProfiler`` and ``get_model_profile`` drive the probes of a recorded rank from start to stop, in a step that is
counted and timed at once, and merge the one shard that comes of it, in memory, as ``distprof merge`` does.
"""

from __future__ import annotations

from distprof.standalone.model_profile import get_model_profile
from distprof.standalone.profiler import FlopsProfiler

__all__ = ["FlopsProfiler", "get_model_profile"]
