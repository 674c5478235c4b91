"""Several made-up nodes in one process: their daemons speak for some seconds, and then their shards are sent.

python -m bench.nodes.daemons PORT FIRST NODES RANKS SECONDS SHARD_BYTES FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from bench.nodes.made_up import CountedStore, Traffic, status
from distprof.launcher.daemon.exchange.store import StoreExchange
from distprof.launcher.daemon.messages import pack
from distprof.launcher.daemon.status import to_message
from distprof.launcher.gather.sender import Sender
from distprof.launcher.store.tcp_store import TcpStore
from distprof.records import Header
from distprof.run_folder import RunFolder
from distprof.shard.writer import FileSink, ShardWriter

PREFIX = "distprof/load/"
EXCHANGE_S = 2.0


def main() -> None:
    port, first, nodes, ranks, seconds, shard_bytes = map(int, sys.argv[1:7])
    traffic = Traffic()
    stores = [CountedStore(TcpStore("127.0.0.1", port, PREFIX), traffic) for _ in range(nodes)]
    print("ready", flush=True)
    sys.stdin.readline()
    _exchange(stores, first, ranks, seconds)
    print(json.dumps({"calls": traffic.calls, "set_bytes": traffic.set_bytes}), flush=True)
    senders = [_sender(store, first + number, ranks, shard_bytes) for number, store in enumerate(stores)]
    print("ready", flush=True)
    sys.stdin.readline()
    while not all(sender.is_complete for sender in senders):
        time.sleep(min(sender.step() for sender in senders if not sender.is_complete))
    print("sent", flush=True)


def _exchange(stores: list[CountedStore], first: int, ranks: int, seconds: int) -> None:
    """Does what the daemon of each node does every two seconds, the nodes one after the other."""
    exchanges = [StoreExchange(store) for store in stores]
    began, pause = time.monotonic(), EXCHANGE_S / len(stores)
    turn = 0
    while time.monotonic() - began < seconds:
        node = turn % len(exchanges)
        exchanges[node].publish_status(pack(to_message(status(first + node, ranks, turn))))
        exchanges[node].request()
        next(iter(exchanges[node].statuses()), None)  # of a node with a lower rank: whether it suspects a hang
        turn += 1
        time.sleep(max(0.0, began + turn * pause - time.monotonic()))


def _sender(store: CountedStore, node: int, ranks: int, shard_bytes: int) -> Sender:
    run = RunFolder(Path(sys.argv[7]) / str(node), f"launch{node}")
    run.shards.mkdir(parents=True)
    for rank in range(node * ranks, (node + 1) * ranks):
        writer = ShardWriter(FileSink(run.shard_path(rank, 0)))
        writer.write(Header("load", rank, 4096, launch=run.launch))
        writer.close()
        with run.shard_path(rank, 0).open("ab") as file:
            file.write(os.urandom(shard_bytes))
    sender = Sender(store, store.add("nodes", 1), run, f"node-{node:04d}", lambda: False)
    sender.finish()
    return sender


if __name__ == "__main__":
    main()
