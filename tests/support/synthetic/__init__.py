"""Writes synthetic runs: a GPT with MoE blocks on any dp x tp x pp x ep, with a slow rank on request.

``write_run(tmp_path / "run", dp=4, tp=2, ep=2, slow_rank=5)`` writes what the recorders of such a job would, by the
real :class:`~distprof.shard.writer.ShardWriter`; ``rank_records(job, rank)`` returns the records themselves, which a
test may change before it writes them.  The same arguments make the same bytes.  Import it as ``from support.synthetic
import ...``: conftest.py makes ``support`` importable.
"""

from support.synthetic.job import MS, RUN_ID, TOKENS, VOCABULARY, WALL_NS, WARMUP, WIDTH, Job
from support.synthetic.model import stage_of
from support.synthetic.records import rank_records
from support.synthetic.runs import in_memory, shard_of, write_run, write_shard

__all__ = [
    "MS",
    "RUN_ID",
    "TOKENS",
    "VOCABULARY",
    "WALL_NS",
    "WARMUP",
    "WIDTH",
    "Job",
    "in_memory",
    "rank_records",
    "shard_of",
    "stage_of",
    "write_run",
    "write_shard",
]
