"""Measures what the daemon of one node costs while ranks beat and answer it: processor time and memory.

cd tools && python -m bench.nodes.one_daemon --ranks 8 --seconds 60

The daemon is a real one.  The ranks are made up: processes without torch that write their slots as real ranks do.
Exits with 1 if the daemon takes 0.5 % of a core or more, or 60 MB of memory.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread

from bench.machine import described
from bench.table import MB, Table
from distprof import run_folder
from distprof.config.settings import Settings, write_settings
from distprof.heartbeat.daemon_start import start_from_launcher
from distprof.heartbeat.look import GROUPS, open_pipe, read_question
from distprof.heartbeat.node_files import ensure_page
from distprof.heartbeat.page import open_page
from distprof.heartbeat.slot import GroupProgress, State
from distprof.heartbeat.slot_writer import SlotRank, SlotWriter
from distprof.rank import procfs
from distprof.run_folder import RunFolder

_LAUNCH = "bench"
_ITERATION_S = 0.1
_STARTS_S = 3.0
_MOST_SHARE, _MOST_BYTES = 0.005, 60 * MB


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.nodes.one_daemon", description=__doc__)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    print(described())
    with tempfile.TemporaryDirectory() as folder:
        share, resident_bytes = _measured(Path(folder), options.ranks, options.seconds)
    rows: list[tuple[str, ...]] = [
        ("CPU, % of a core", f"{100 * share:.2f}"),
        ("memory, MB", f"{resident_bytes / MB:.0f}"),
    ]
    is_kept = share < _MOST_SHARE and resident_bytes < _MOST_BYTES
    note = f"Below {100 * _MOST_SHARE:g} % and {_MOST_BYTES / MB:g} MB: {'kept' if is_kept else '**missed**'}."
    print(Table(f"The daemon of a node with {options.ranks} ranks", ("", "measured"), rows, (note,)))
    return 0 if is_kept else 1


def _measured(folder: Path, ranks: int, seconds: float) -> tuple[float, int]:
    """Returns the share of a core that the daemon takes, and the memory that it holds (bytes)."""
    run = run_folder.create(folder, "bench", shared=False)
    settings = Settings(run_dir=str(run.path), run_id=_LAUNCH, launch=_LAUNCH, daemon=True)
    write_settings(settings, run.inject)
    node, _ = ensure_page(run, _LAUNCH)
    rank_pids = [_forked(node.token, rank, ranks) for rank in range(ranks)]
    daemon = start_from_launcher(run, _LAUNCH, node.token, sys.path)
    daemon.pass_on(lambda line: None)  # close() then waits for the daemon's last writes
    try:
        time.sleep(_STARTS_S)
        pid = _daemon_pid(run)
        before, began = _cpu_s(pid), time.monotonic()
        time.sleep(seconds)
        share = (_cpu_s(pid) - before) / (time.monotonic() - began)
        resident_bytes = procfs.resident_bytes(pid, procfs.started_tick(pid) or 0)
    finally:
        for rank_pid in rank_pids:
            os.kill(rank_pid, signal.SIGKILL)
            os.waitpid(rank_pid, 0)
        daemon.close()
    if resident_bytes is None:
        raise RuntimeError("the daemon has ended")
    return share, resident_bytes


def _forked(token: str, rank: int, ranks: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _train(token, rank, ranks)
    finally:
        os._exit(1)


def _train(token: str, rank: int, ranks: int) -> None:
    """Writes the slot of a rank in quiet iterations until the process is killed; the last rank is always late."""
    page = open_page(token)
    index = page.claim(rank)
    assert index is not None
    slot = SlotWriter(page, index, SlotRank(rank, ranks, rank, 0, "host", "cpu", time.time_ns()), time.perf_counter_ns)
    slot.place(f"dp {rank}")
    pipe, late = open_pipe(token, index), int(rank == ranks - 1)
    iteration = 0

    def answer() -> None:
        while True:
            kind, _ = read_question(pipe)
            if kind == GROUPS:
                slot.groups([GroupProgress("dp", ranks, 1, 4 * iteration - late, 4 * iteration - 1)])

    Thread(target=answer, daemon=True).start()
    while True:
        iteration += 1
        slot.iteration_begins(iteration, State.QUIET, 0, 0)
        time.sleep(_ITERATION_S)


def _daemon_pid(run: RunFolder) -> int:
    for entry in Path("/proc").iterdir():
        words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        if len(words) > 3 and b"distprof.launcher.daemon.main" in words[2] and words[3] == os.fsencode(run.path):
            return int(entry.name)
    raise RuntimeError("the daemon has not started")


def _cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


if __name__ == "__main__":
    sys.exit(main())
