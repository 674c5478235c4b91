"""Writes the shard of a rank that never called a model, so that it differs from a rank that died."""

from __future__ import annotations

import sys
from pathlib import Path

from distprof.clock import SystemClock, anchor
from distprof.config.settings import Settings
from distprof.rank import ownership
from distprof.rank.identity import header, identify
from distprof.recorder.shard_output import open_shard
from distprof.recorder.windows.capture_plan import first_window
from distprof.records import NO_MODULE, ONLY_COMPILED, End
from distprof.run_folder import RunFolder


def write_no_model_shard(settings: Settings) -> None:
    """Writes that shard if this process is a rank, not only the parent of one.

    It may raise; its caller must not.
    """
    identity, run = identify(), RunFolder(Path(settings.run_dir))
    if identity is None:
        return
    launch = settings.launch, settings.launched_ns
    first = header(identity, settings.run_id, anchor(SystemClock()), launch=launch)
    writer = open_shard(run, first, lambda: ownership.was_claimed_since(run, first.rank))
    if writer is not None:
        writer.write(first_window(settings, identity.world_size).record())
        writer.write(End(ONLY_COMPILED if _compiled() else NO_MODULE, 0))
        writer.close()


def _compiled() -> bool:
    """Whether torch has compiled any function of this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and dynamo.counters["stats"]["unique_graphs"] > 0
