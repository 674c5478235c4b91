"""A training job of the measured model without any use of distprof; it prints its resident memory at its end.

python -m bench.rank small --steps 20
"""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

from bench.gpt import Training
from bench.shapes import SHAPES


def resident_bytes() -> int:
    """Returns the resident memory of this process now; needs Linux."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("--steps", type=int, required=True)
    arguments = parser.parse_args()
    training = Training(SHAPES[arguments.model])
    for _ in range(arguments.steps):
        training.step()
    gc.collect()
    print(f"resident: {resident_bytes()}")


if __name__ == "__main__":
    main()
