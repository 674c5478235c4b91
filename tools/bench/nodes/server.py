"""Serves a store, as the agent of torchrun's first node does, and says what that cost.

python -m bench.nodes.server: prints the port; then, for each line on stdin, the seconds of CPU so far.
"""

from __future__ import annotations

import resource
import sys

from torch._C._distributed_c10d import TCPStore


def main() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    print(store.port, flush=True)
    for _ in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, flush=True)


if __name__ == "__main__":
    main()
