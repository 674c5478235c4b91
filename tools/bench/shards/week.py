"""Measures what windows that come back leave in a shard: the last ones whole, earlier ones as a summary.

python -m bench.shards.week        prints a :class:`Windows` as JSON
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from bench.gpt import Training
from bench.recorders import recording
from bench.shapes import SHAPES
from bench.shards.growth import length
from distprof.records import Step, WindowSummary
from distprof.shard.reader import read_shard

_TIMED = 10
_EVERY = 1 + 1 + 1 + _TIMED  # iterations: the warm-up, the counted one, the one that settles, and the timed ones
_WINDOWS = 13  # more than a shard holds whole


@dataclass(frozen=True)
class Windows:
    """``most_whole``: windows that a shard had whole at once; ``first_bytes``: those of a shard with one window."""

    most_whole: int
    first_bytes: int
    window_bytes: int  # of one more whole window, at most
    summary_bytes: int  # of a reduced one, at most


def measure() -> Windows:
    """Returns the sizes of a shard of the small model, looked at after each of its windows."""
    training, sizes, whole = Training(SHAPES["small"]), list[int](), list[int]()
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        with recording(Path(folder), warmup=1, timed=_TIMED, every=_EVERY) as (_, shard):
            for _ in range(_WINDOWS):
                for _ in range(_EVERY):
                    training.step()
                sizes.append(shard().stat().st_size)
                whole.append(len({one.window for one in read_shard(shard()).records if isinstance(one, Step)}))
        summaries = [one for one in read_shard(shard()).records if isinstance(one, WindowSummary)]
    if not summaries:
        raise RuntimeError(f"no window of {_WINDOWS} was reduced")
    grown = [after - before for before, after in pairwise(sizes)]
    return Windows(max(whole), sizes[0], max(grown), max(map(length, summaries)))


if __name__ == "__main__":
    print(json.dumps(asdict(measure())))
