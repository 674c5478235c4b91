"""Writes the table of docs/METRICS.md from the metrics in launcher/daemon/metrics."""

from __future__ import annotations

import re
from pathlib import Path

from distprof.launcher.daemon.metrics.collector import INFO, ITERATION, PHASE, TEXTS
from distprof.launcher.daemon.metrics.rank_metrics import GAUGES

PAGE = Path(__file__).parent.parent / "docs" / "METRICS.md"


def with_table(page: str) -> str:
    """Returns the page with the table as the code has it."""
    rows = [(gauge.name, "gauge", gauge.text) for gauge in GAUGES]
    rows += [
        (f"{PHASE}` with the label `phase", "gauge", TEXTS[PHASE]),
        (ITERATION, "histogram", TEXTS[ITERATION]),
        (f"{INFO}_info", "info", f"{TEXTS[INFO]}: `world_size`, `local_rank`, `pid`, `device`, `gpu_uuid`"),
    ]
    head = "| metric | type | meaning |\n|---|---|---|\n"
    table = head + "".join(f"| `{name}` | {kind} | {text} |\n" for name, kind, text in rows)
    return re.sub(r"(<!-- metrics -->\n).*(<!-- /metrics -->)", rf"\g<1>{table}\g<2>", page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
