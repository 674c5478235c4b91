"""Measures the bytes that a timed step adds to a rank's shard, and those that do not depend on the steps.

python -m bench.shards.growth        prints a :class:`Growth` for each model as JSON
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.gpt import Training
from bench.recorders import recording
from bench.shapes import SHAPES
from distprof.records import Header, Record, Step, Timeline
from distprof.shard.reader import read_shard
from distprof.shard.writer import MemorySink, ShardWriter

_FEW, _MANY = 1, 3


@dataclass(frozen=True)
class Growth:
    """``once_bytes``: the bytes that do not depend on the number of steps: tree, parameters, counts.

    A step has a record of its modules, whose length depends on their number, and one of its timeline, whose length
    depends on how many of the turns are long.
    """

    calls: int  # module calls in one step
    turns: int  # long turns of the last step
    modules_bytes: int  # of the last step
    timeline_bytes: int  # of the last step
    step_bytes: float
    once_bytes: float


def growth(model: str) -> Growth:
    """Returns the growth, from two windows of different length."""
    few, _, _ = _recorded(model, _FEW)
    many, step, timeline = _recorded(model, _MANY)
    step_bytes = (many - few) / (_MANY - _FEW)
    return Growth(
        calls=int(step.calls.sum()),
        turns=len(timeline.turn_owner),
        modules_bytes=length(step),
        timeline_bytes=length(timeline),
        step_bytes=step_bytes,
        once_bytes=few - _FEW * step_bytes,
    )


def _recorded(model: str, steps: int) -> tuple[int, Step, Timeline]:
    """Records a window of so many timed steps; returns the bytes of the file, and the records of the last step."""
    training = Training(SHAPES[model])
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        with recording(Path(folder), warmup=1, timed=steps) as (_, shard):
            for _ in range(steps + 2):
                training.step()
        records = read_shard(shard()).records
        step = next(record for record in reversed(records) if isinstance(record, Step))
        timeline = next(record for record in reversed(records) if isinstance(record, Timeline))
        return shard().stat().st_size, step, timeline


def length(record: Record) -> int:
    """Returns the bytes of a record in a shard."""
    writer = ShardWriter(sink := MemorySink())
    writer.write(Header("bench", 0, 1))
    before = len(sink.data)
    writer.write(record)
    return len(sink.data) - before


def main() -> None:
    print(json.dumps({model: asdict(growth(model)) for model in SHAPES}))


if __name__ == "__main__":
    main()
