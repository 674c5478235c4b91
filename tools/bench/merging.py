"""Time and peak memory of ``distprof merge`` for synthetic runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.process import Cost, python


@dataclass(frozen=True)
class Merge:
    """``with_plots``: with everything that ``distprof merge`` does by default."""

    ranks: int
    modules: int
    shard_bytes: int
    with_plots: list[Cost]
    without_plots: list[Cost]


def merge(kind: str, ranks: int, times: int) -> Merge:
    """Merges a synthetic run ``times`` times in each way; its files are in the disk cache."""
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        here, run = Path(folder), Path(folder) / "run"
        python("-m", "bench.synthetic_runs", run, kind, "--ranks", ranks)
        command = ("-m", "distprof", "merge", run)
        return Merge(
            ranks=ranks,
            modules=_modules(run),
            shard_bytes=sum(shard.stat().st_size for shard in run.glob("shards/*")),
            with_plots=[python(*command, cwd=here) for _ in range(times)],
            without_plots=[python(*command, "--no-plots", cwd=here) for _ in range(times)],
        )


def _modules(run: Path) -> int:
    from distprof.records import Tree
    from distprof.shard.reader import read_shard

    first = min(run.glob("shards/*"))
    return sum(len(record.rows) for record in read_shard(first).records if isinstance(record, Tree))
