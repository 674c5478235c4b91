"""``make gpu``: checks what only a GPU can show, prints the tables, and writes them to a page.

cd tools && python -m gpu --out ../docs/GPU.md
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

import torch
from bench.machine import described
from bench.table import Table

from distprof.native import extension
from gpu.compiled import compiled
from gpu.experts import experts
from gpu.finding import FAILED, NEEDS_GPU, Finding, Part
from gpu.memory import memory
from gpu.ranks import ranks
from gpu.step_cost import step_cost
from gpu.timestamps import timestamps
from gpu.triton_kernels import triton_kernels
from gpu.utilization import utilization

#: title -> what checks it, in the order of the page
PARTS: dict[str, Part] = {
    "Times of modules against kernels of known length": timestamps,
    "What recording adds to a step": step_cost,
    "Tokens of experts": experts,
    "Memory": memory,
    "Compiled regions and CUDA graphs": compiled,
    "MFU": utilization,
    "Several ranks on one device": ranks,
    "Triton kernels": triton_kernels,
}
_PAGE = """# What was checked on a GPU

Made by `make gpu`.

{machine} Device: {device}.

{tables}"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu", description="Check what only a GPU can show.")
    parser.add_argument("--out", type=Path, help="write the page to this file, if the device is a GPU")
    parser.add_argument("--device", help="as torch names it  [default: a GPU if there is one]")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="some of the parts")
    arguments = parser.parse_args()
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = {title: _checked(title, device) for title in arguments.only}
    tables = [_table(title, rows) for title, rows in found.items()]
    print("\n".join(map(str, tables)))
    if arguments.out and device.type == "cuda":
        page = _PAGE.format(machine=described(), device=_device_name(device), tables="\n".join(map(str, tables)))
        arguments.out.write_text(page, encoding="utf-8")
    sys.exit(_conclude([row for rows in found.values() for row in rows]))


def _checked(title: str, device: torch.device) -> list[Finding]:
    """Returns the rows of one part; one that raises is a failed check, and the others still run."""
    print(f"gpu: {title}", file=sys.stderr, flush=True)
    try:
        return PARTS[title](device)
    except Exception as error:
        traceback.print_exc()
        return [Finding("this part", f"{type(error).__name__}: {error}".splitlines()[0], "", FAILED)]


def _table(title: str, rows: list[Finding]) -> Table:
    cells: list[tuple[str, ...]] = [(row.what, row.measured, row.expected, row.verdict) for row in rows]
    return Table(title, ("check", "measured", "expected", "verdict"), cells)


def _device_name(device: torch.device) -> str:
    with_or_without = "without" if extension.compiled is None else "with"
    name = torch.cuda.get_device_name(device)
    return f"{name}, CUDA {torch.version.cuda}, {with_or_without} the compiled part of distprof"


def _conclude(rows: list[Finding]) -> int:
    """Says how many checks failed; returns the exit code."""
    failed = sum(row.verdict == FAILED for row in rows)
    skipped = sum(row.verdict == NEEDS_GPU for row in rows)
    print(f"gpu: {failed} of {len(rows)} checks failed, {skipped} need a GPU", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    main()
