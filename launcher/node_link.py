"""The launcher's link to the other nodes of its job: a thread that is connected to the store of the rendezvous.

It makes the daemon's calls to the store, and moves the shards of all nodes to the first one.  It is here and not in the
daemon because the launcher has imported torch, and outlives a daemon that is killed.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distprof.console import say
from distprof.errors import said
from distprof.launcher.gather.folders import announce, first_node
from distprof.launcher.gather.receiver import Receiver
from distprof.launcher.gather.sender import Sender
from distprof.launcher.recording_now import RecordingNow
from distprof.launcher.store.key_values import KeyValues
from distprof.launcher.store.relay import Relay, relay_pair
from distprof.launcher.store.rendezvous import Rendezvous, is_served_here
from distprof.launcher.store.tcp_store import TcpStore
from distprof.run_folder import RunFolder

_LOOK_S = 0.5
#: The first node waits so long for nodes that send nothing after its own end, and each other node for the first one.
FIRST_WAITS_S, OTHERS_WAIT_S = 20.0, 40.0
#: So long the store stays for nodes that have not read yet that their shards have come.
_ACKNOWLEDGING_S = 3.0
_SAID_AFTER_S = 3.0


@dataclass(frozen=True)
class Gathered:
    """Where the shards of all nodes are when the job has ended."""

    received: bool = False  # shards of other nodes are in this run folder
    sent_to: str = ""  # the host of the first node, if all shards of this node are there
    missing: tuple[str, ...] = ()  # a few words for each node whose shards are not all here
    trouble: str = ""  # why the shards of this node stay here alone


class NodeLink:
    """One for each launcher of a job of several nodes.  It raises nothing into the launcher."""

    def __init__(self, run: RunFolder, host: str, rendezvous: Rendezvous, *, merges: bool = False) -> None:
        """``merges``: the first node merges when the job has ended.  Raises OSError."""
        self._run = run
        self._host = host
        self._rendezvous = rendezvous
        self._merges = merges
        self._waker, self._woken = socket.socketpair()
        end, self.daemon_end = relay_pair()
        self._relay: Relay | None = Relay(end)
        self._has_ended, self._is_over = threading.Event(), threading.Event()
        self._gives_up = False
        self._gathered = Gathered()
        self.is_first = False  # whether this node has the store

    def start(self) -> None:
        """Starts the thread; the daemon has its end of the relay, or there is none."""
        self.daemon_end.close()
        threading.Thread(target=self._run_thread, name="distprof", daemon=True).start()

    def finish(self) -> Gathered:
        """Waits until the shards of the job, which has ended, are where they belong; Ctrl-C ends the wait."""
        self._has_ended.set()
        self._waker.send(b"x")
        try:
            if not self._is_over.wait(_SAID_AFTER_S):
                say("waiting for the shards of all nodes; Ctrl-C ends that, and each node keeps its own")
                self._is_over.wait()
        except KeyboardInterrupt:
            self._gives_up = True
            self._waker.send(b"x")
            self._is_over.wait(_LOOK_S)
        self._rendezvous.release()
        return self._gathered

    def _run_thread(self) -> None:
        store: TcpStore | None = None
        try:
            store = self._connected()
            if store is not None:
                self._gather(store)
        except OSError as error:
            self._gathered = Gathered(trouble=f"the store of the rendezvous is gone: {said(error)}")
        except Exception as error:
            self._gathered = Gathered(trouble=f"a fault of distprof: {error!r}")
        finally:
            if self._relay is not None:
                self._relay.close()
            self._is_over.set()

    def _connected(self) -> TcpStore | None:
        """Returns the store once torchrun has it; None where it has none.  Raises StoreLost."""
        while (address := self._rendezvous.address()) is None:
            self._serve(None, _LOOK_S)
            if self._rendezvous.has_no_store:
                say("the rendezvous has no TCPStore: nodes know of each other only if they share the run folder")
                return None
            if self._has_ended.is_set():
                return None
        return TcpStore(*address, f"distprof/{self._run.path.name}/")

    def _gather(self, store: TcpStore) -> None:
        """Moves shards until the job has ended and all are where they belong.  Raises OSError."""
        address = self._rendezvous.address()
        number = store.add("nodes", 1)
        if address is not None and is_served_here(address[1]):
            self.is_first = True
            announce(store, self._run, self._host)
            self._receive(store, Receiver(store, number, self._run, waits_for_all=self._merges))
        else:
            self._send(store, number)

    def _receive(self, store: KeyValues, receiver: Receiver) -> None:
        wait = _Wait(FIRST_WAITS_S)
        while not self._gives_up:
            pause = receiver.step()
            if self._has_ended.is_set() and (receiver.is_complete or not wait.goes_on(receiver.moves)):
                break
            self._serve(store, pause)
        until = time.monotonic() + _ACKNOWLEDGING_S
        while receiver.is_complete and not receiver.acknowledged and time.monotonic() < until:
            self._serve(store, 0.02)
        self._gathered = Gathered(received=bool(receiver.senders()), missing=tuple(receiver.incomplete()))

    def _send(self, store: KeyValues, number: int) -> None:
        wait = _Wait(OTHERS_WAIT_S)
        while (first := first_node(store, self._run)) is None:
            self._serve(store, _LOOK_S)
            if self._gives_up or (self._has_ended.is_set() and not wait.goes_on(0)):
                self._gathered = Gathered(trouble="no node of the job has its store")
                return
        sender = Sender(
            store, number, self._run, self._host, RecordingNow(self._run), shares_folder=first.shares_folder
        )  # fmt: skip
        while not self._gives_up:
            if self._has_ended.is_set():
                sender.finish()
            pause = sender.step()
            if self._has_ended.is_set() and (
                sender.is_complete or not wait.goes_on(sender.moves, lambda: store.add("progress", 0))
            ):
                break
            self._serve(store, pause)
        if not sender.is_complete:
            self._gathered = Gathered(trouble=f"{first.host} has not taken them")
        elif sender.is_damaged:
            self._gathered = Gathered(trouble=f"{first.host} has other bytes than were sent")
        elif not first.shares_folder:
            self._gathered = Gathered(sent_to=first.host)

    def _serve(self, store: KeyValues | None, seconds: float) -> None:
        """Makes the calls of the daemon for this time, or until the job ends."""
        until = time.monotonic() + seconds
        while True:
            watched: list[Any] = [self._woken, *([self._relay] if self._relay is not None else [])]
            ready, _, _ = select.select(watched, [], [], max(0.0, until - time.monotonic()))
            if self._relay in ready and self._relay is not None and not self._relay.answer(store):
                self._relay.close()
                self._relay = None
            if self._woken in ready:
                self._woken.recv(64)
                return
            if not ready:
                return


class _Wait:
    """Goes on as long as something moves."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._seen: tuple[int, int] | None = None
        self._since = self._looked = 0.0
        self._progress = 0

    def goes_on(self, moves: int, progress: Callable[[], int] = lambda: 0) -> bool:
        """``progress`` is asked once a second.  Raises what it raises."""
        now = time.monotonic()
        if now - self._looked > 1:
            self._looked, self._progress = now, progress()
        if self._seen != (moves, self._progress):
            self._seen, self._since = (moves, self._progress), now
        return now - self._since < self._patience_s
