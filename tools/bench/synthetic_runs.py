"""Writes the shards of a synthetic run.

python -m bench.synthetic_runs FOLDER large --ranks 512
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tests_support import support

#: Arguments of tests/support/synthetic, by the kind of run:
#: ``demo`` has about as many modules as the job of ``make demo``.
#: ``dense`` has 168 modules, as many as the job of which traces were compared with HTA (164), and no collectives.
#: ``large`` has 999 modules on each rank; every second block is a mixture of 16 experts, distributed over 8 ranks.
#: ``experts`` has 94 mixtures of 256 experts, and the choices of their routers.
#: ``collectives`` is a dense model, whose ranks enqueue 40 collectives in an iteration and wait for rank 5.
RUNS: dict[str, dict[str, Any]] = {
    "demo": {"layers": 4, "experts": 16, "ep": 4, "steps": 10},
    "dense": {"layers": 18, "experts": 0, "steps": 10},
    "large": {"layers": 83, "experts": 16, "ep": 8, "steps": 10},
    "experts": {"layers": 188, "experts": 256, "ep": 8, "steps": 10, "hot": 3.0, "top_k": 8, "routes": True},
    "collectives": {
        "layers": 16,
        "experts": 0,
        "steps": 10,
        "collectives": 40,
        "slow_rank": 5,
        "slow_module": "blocks.1.mlp.up",
    },
}


def write(folder: Path, kind: str, ranks: int) -> None:
    """Writes a run of a kind into a folder, with ``ranks`` data-parallel ranks."""
    support("synthetic").write_run(folder, dp=ranks, **RUNS[kind])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=RUNS)
    parser.add_argument("--ranks", type=int, required=True)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.kind, arguments.ranks)


if __name__ == "__main__":
    main()
