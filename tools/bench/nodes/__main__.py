"""Measures what the nodes of a large job cost the store of its rendezvous.

cd tools && python -m bench.nodes --nodes 64 --ranks 8 --seconds 30

Real daemons' exchanges and real senders of shards, of made-up nodes, are attached to one real TCPStore.  Exits with 1
if a node writes more than once a second, or 2 kB or more at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import described
from bench.nodes.daemons import EXCHANGE_S, PREFIX
from bench.process import PYTHON, TOOLS
from bench.table import MB, Table
from distprof.launcher.daemon.exchange.store import MAX_VALUE_BYTES, StoreExchange
from distprof.launcher.gather.receiver import Receiver
from distprof.launcher.store.tcp_store import TcpStore
from distprof.run_folder import RunFolder

_MOST_SETS = 1.0  # a second, of a node


class Process:
    """A process of this package, spoken to line by line."""

    def __init__(self, module: str, *words: object) -> None:
        self._process = subprocess.Popen(
            [PYTHON, "-m", f"bench.nodes.{module}", *map(str, words)],
            cwd=TOOLS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.nodes", description=__doc__)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--ranks", type=int, default=8, help="of each node")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--shard-bytes", type=int, default=200_000)
    parser.add_argument("--processes", type=int, default=4, help="in which the nodes are")
    options = parser.parse_args()
    print(described())
    server = Process("server")
    port = int(server.line())
    with tempfile.TemporaryDirectory() as folder:
        table, is_kept = _measured(server, port, options, Path(folder))
    server.end()
    print(table)
    return 0 if is_kept else 1


def _measured(server: Process, port: int, options: argparse.Namespace, folder: Path) -> tuple[Table, bool]:
    each = options.nodes // options.processes
    groups = [
        Process("daemons", port, number * each, each, options.ranks, options.seconds, options.shard_bytes, folder)
        for number in range(options.processes)
    ]
    nodes = each * options.processes
    _all_ready(groups)
    speaking = _while_speaking(server, port, groups, options.seconds)
    _all_ready(groups)
    sending = _while_sending(server, port, groups, folder, nodes, options.shard_bytes * options.ranks)
    sets, largest = speaking["calls"]["set"] / nodes / options.seconds, max(speaking["set_bytes"])
    is_kept = sets <= _MOST_SETS and largest < MAX_VALUE_BYTES
    mean = sum(speaking["set_bytes"]) / len(speaking["set_bytes"])
    rows: list[tuple[str, ...]] = [
        ("CPU of the store, % of a core", f"{100 * speaking['cpu_s'] / options.seconds:.2f}"),
        ("calls a second, of all nodes", f"{sum(speaking['calls'].values()) / options.seconds:.0f}"),
        ("sets a second, of a node", f"{sets:.2f}"),
        ("bytes of a set, mean", f"{mean:.0f}"),
        ("bytes of a set, most", f"{largest}"),
        ("kB written a second, of all nodes", f"{sum(speaking['set_bytes']) / options.seconds / 1000:.1f}"),
        ("reading the status of all nodes, ms", f"{speaking['read_ms']:.1f}"),
        ("MB of shards of all nodes", f"{sending['bytes'] / MB:.0f}"),
        ("seconds to gather them", f"{sending['seconds']:.1f}"),
        ("CPU of the store meanwhile, s", f"{sending['cpu_s']:.2f}"),
    ]
    verdict = "kept" if is_kept else "**missed**"
    note = f"At most {_MOST_SETS:g} set a second of a node, of less than {MAX_VALUE_BYTES} bytes: {verdict}."
    return Table(f"{nodes} nodes of {options.ranks} ranks at one store", ("", "measured"), rows, (note,)), is_kept


def _all_ready(groups: Sequence[Process]) -> None:
    for group in groups:
        assert group.line() == "ready"


def _cpu_s(server: Process) -> float:
    server.go_on()
    return float(server.line())


def _while_speaking(server: Process, port: int, groups: Sequence[Process], seconds: int) -> dict[str, Any]:
    """Returns what the exchanges of all daemons cost; one of them also reads the status of all nodes."""
    reader, reads = StoreExchange(TcpStore("127.0.0.1", port, PREFIX)), []
    before = _cpu_s(server)
    for group in groups:
        group.go_on()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(EXCHANGE_S)
        began = time.perf_counter()
        found = len(list(reader.statuses()))
        reads.append((found, 1000 * (time.perf_counter() - began)))
    cpu_s = _cpu_s(server) - before
    calls: Counter[str] = Counter()
    set_bytes: list[int] = []
    for group in groups:
        told = json.loads(group.line())
        calls.update(told["calls"])
        set_bytes += told["set_bytes"]
    return {"cpu_s": cpu_s, "calls": calls, "set_bytes": set_bytes, "read_ms": sorted(reads)[len(reads) // 2][1]}


def _while_sending(
    server: Process, port: int, groups: Sequence[Process], folder: Path, nodes: int, node_bytes: int
) -> dict[str, float]:
    run = RunFolder(folder / "first", "first")
    run.shards.mkdir(parents=True)
    store = TcpStore("127.0.0.1", port, PREFIX)
    receiver = Receiver(store, store.add("nodes", 1), run)
    before, began = _cpu_s(server), time.monotonic()
    for group in groups:
        group.go_on()
    while not (receiver.is_complete and len(receiver.senders()) == nodes):
        time.sleep(receiver.step())
    seconds = time.monotonic() - began
    for group in groups:
        assert group.line() == "sent"
        group.end()
    total = sum(path.stat().st_size for path in run.shard_files())
    assert total > nodes * node_bytes
    return {"cpu_s": _cpu_s(server) - before, "seconds": seconds, "bytes": total}


if __name__ == "__main__":
    sys.exit(main())
