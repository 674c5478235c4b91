"""Measures the parts of a merge of one synthetic run, each in processor seconds of this process.

python -m bench.scale large --ranks 512        prints a :class:`~bench.scale.table.Merged` as JSON
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench import synthetic_runs
from bench.scale.table import Merged
from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.export.table_files import csv_files
from distprof.merge.export.tables import NAMES, make_one
from distprof.merge.html.page import render_page
from distprof.merge.load.packing import unpack
from distprof.merge.load.rank import RankData, RankReader
from distprof.merge.load.reading import CHUNK_FILES, read_chunk
from distprof.merge.load.run import load_run
from distprof.merge.load.shared_values import SharedValues
from distprof.merge.report import Report
from distprof.merge.text import DEFAULTS, render
from distprof.run_folder import RunFolder

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=synthetic_runs.RUNS)
    parser.add_argument("--ranks", type=int, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="distprof-bench-") as folder:
        run = Path(folder) / "run"
        synthetic_runs.write(run, arguments.kind, arguments.ranks)
        print(json.dumps(asdict(_merged(run, arguments.ranks))))


def _merged(run: Path, ranks: int) -> Merged:
    files = RunFolder(run).shard_files()
    bytes_s, _ = _timed(lambda: [file.read_bytes() for file in files[:CHUNK_FILES]])
    reduce_s, take_over_s = _in_chunks(files)
    loaded = [load_run(run)]
    analyse_s, report = _timed(lambda: analyse(loaded.pop()))
    analysed_bytes = _peak_bytes()
    write_s, _ = _timed(partial(_written, report))
    return Merged(
        ranks=ranks,
        shard_bytes=sum(file.stat().st_size for file in files),
        bytes_s=bytes_s * len(files) / min(len(files), CHUNK_FILES),
        reduce_s=reduce_s,
        take_over_s=take_over_s,
        analyse_s=analyse_s,
        write_s=write_s,
        analysed_bytes=analysed_bytes,
        written_bytes=_peak_bytes(),
    )


def _written(report: Report) -> tuple[object, ...]:
    """Returns what a merge writes without plots; a run of many ranks has no table of the times of modules as text."""
    tables = csv_files({name: make_one(report, name) for name in NAMES if name != "module_times"})
    return render(report, DEFAULTS), tables, render_page(report, tables), to_json(report)


def _peak_bytes() -> int:
    """Returns the largest memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _in_chunks(files: Sequence[Path]) -> tuple[float, float]:
    """Returns the seconds that processes take to read and reduce all shards, and that one takes to unpack it all."""
    reduce_s = take_over_s = 0.0
    reader, shared = RankReader(), SharedValues()
    for at in range(0, len(files), CHUNK_FILES):
        names = list(map(str, files[at : at + CHUNK_FILES]))
        taken_s, packed = _timed(partial(read_chunk, names))
        reduce_s += taken_s
        take_over_s += _timed(partial(_taken_over, packed, reader, shared))[0]
    return reduce_s, take_over_s


def _taken_over(packed: bytes, reader: RankReader, shared: SharedValues) -> list[object]:
    return [shared.of_rank(one) if isinstance(one, RankData) else one for one in unpack(packed, reader)]


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Returns the processor seconds of this process, and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


if __name__ == "__main__":
    main()
