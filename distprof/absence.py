"""What a rank leaves that never called a model: a shard that says so, for it is not the same as a rank that died."""

from __future__ import annotations

from pathlib import Path

from distprof.clock import SystemClock, anchor
from distprof.identity import header, identify
from distprof.output import open_shard
from distprof.records import End, Plan
from distprof.rundir import RunDir
from distprof.settings import Settings


def tell(settings: Settings) -> None:
    """Write that shard, if this process is a rank.  May raise: its caller is the one who must not."""
    identity = identify()
    opened = open_shard(RunDir(Path(settings.run_dir)), identity.rank) if identity is not None else None
    if identity is not None and opened is not None:
        writer, generation = opened
        writer.write(header(identity, settings.run_id, generation, anchor(SystemClock())))
        writer.write(Plan(settings.warmup, settings.counted, settings.timed))
        writer.write(End("no module was called", 0))
        writer.close()
