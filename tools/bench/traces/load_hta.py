"""Loads a folder of traces with Holistic Trace Analysis, which parses them; imports nothing else.

python bench/traces/load_hta.py FOLDER        prints the seconds without the import as JSON
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module


def main() -> None:
    analysis = import_module("hta.trace_analysis").TraceAnalysis
    began = time.perf_counter()
    analysis(trace_dir=sys.argv[1])
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
