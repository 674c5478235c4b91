"""Runs whole jobs with ``distprof run``, as a user does, and reads their runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.examples import Job

from distprof.records import Plan, Step
from distprof.shard.reader import Shard, read_shard


@dataclass
class Recorded:
    """A job that ran under distprof, and its run."""

    job: Job
    stderr: str
    code: int
    run: Path
    cli: Callable[..., subprocess.CompletedProcess[str]]

    @property
    def shards(self) -> list[Shard]:
        """Returns the shards in rank order."""
        return [read_shard(path) for path in sorted((self.run / "shards").iterdir())]

    def steps(self, rank: int) -> list[Step]:
        """Returns the timed steps that are used."""
        records = self.shards[rank].records
        (plan,) = (record for record in records if isinstance(record, Plan))
        settled = plan.start + plan.counted + plan.settling
        return [record for record in records if isinstance(record, Step) and record.iteration >= settled]

    def merge(self, *options: str) -> dict[str, Any]:
        """Merges the run and returns its summary.json."""
        merged = self.cli("merge", str(self.run), *options)
        assert merged.returncode == 0, merged.stderr
        report: dict[str, Any] = json.loads((self.run / "report" / "summary.json").read_text(encoding="utf-8"))
        return report


#: ``record_job("train_moe.py", "--steps", "20", nproc=8, ours=["--warmup", "2"])``
RunJob = Callable[..., Recorded]
