"""The profiler of one process, without launcher: DeepSpeed's flops profiler by name, arguments and output.

``FlopsProfiler`` and ``get_model_profile`` attach the probes of a recorded rank, in a step that is counted and timed at
once, and merge the resulting shard in memory, as ``distprof merge`` does.
"""

from __future__ import annotations

from distprof.standalone.model_profile import get_model_profile
from distprof.standalone.profiler import FlopsProfiler

__all__ = ["FlopsProfiler", "get_model_profile"]
