"""Measures the bytes that a timed step adds to a rank's shard, and those that do not depend on the steps.

python -m bench.shards        prints a :class:`Growth` for each model as JSON
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.gpt import Training
from bench.recorders import recording
from bench.shapes import SHAPES
from distprof.records import Step
from distprof.shard.reader import read_shard

_FEW, _MANY = 1, 3


@dataclass(frozen=True)
class Growth:
    """``once_bytes``: the bytes that do not depend on the number of steps: tree, parameters, counts."""

    calls: int  # module calls in one step
    step_bytes: float
    once_bytes: float


def growth(model: str) -> Growth:
    """Returns the growth, from two windows of different length."""
    few, calls = _shard_bytes(model, _FEW)
    many, _ = _shard_bytes(model, _MANY)
    step = (many - few) / (_MANY - _FEW)
    return Growth(calls, step, few - _FEW * step)


def _shard_bytes(model: str, steps: int) -> tuple[int, int]:
    """Records a window of so many timed steps; returns (bytes of the file, module calls in a step)."""
    training = Training(SHAPES[model])
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        with recording(Path(folder), warmup=1, timed=steps) as (_, shard):
            for _ in range(steps + 2):
                training.step()
        last = [record for record in read_shard(shard()).records if isinstance(record, Step)][-1]
        return shard().stat().st_size, int(last.calls.sum())


def main() -> None:
    print(json.dumps({model: asdict(growth(model)) for model in SHAPES}))


if __name__ == "__main__":
    main()
