"""The thread that compares clocks: in one rank of each host, between the steps that are timed.

The first host that comes is the reference: its thread answers one host after the other, in the order in which they
come.  The others measure when they start, and again when the window has ended.  A host that never comes keeps nobody
waiting, and while steps are timed all threads wait in the store's socket, without Python's lock.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from threading import Event, Thread

from distprof.clock import Clock
from distprof.clock_sync.ping_pong import Interrupted, answer, ask, best, decline, forget
from distprof.clock_sync.store_channel import StoreChannel
from distprof.console import say
from distprof.errors import said
from distprof.records import ClockOffset

#: The longest wait for the thread at the end of the process; it ends at once unless the store does not answer.
_JOIN_S = 1.0


class ClockSync:
    """Measures the offset of this host's clock while it is allowed to, and hands each measurement over."""

    def __init__(
        self,
        open_channel: Callable[[], StoreChannel],
        clock: Clock,
        domain: str,
        publish: Callable[[ClockOffset], None],
    ) -> None:
        """``publish`` is called on the thread; ``domain`` is the :func:`~distprof.clock.clock_domain` of this host."""
        self._open_channel = open_channel
        self._now = clock.mono_ns
        self._domain = domain
        self._publish = publish
        self._channel: StoreChannel | None = None
        self._stopped = False
        self._allowed, self._wanted = Event(), Event()
        self._allowed.set()
        self._wanted.set()  # the first measurement
        self._thread = Thread(target=self._run, name="distprof-clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pause(self) -> None:
        """Keeps the thread still: steps are timed now."""
        self._allowed.clear()

    def resume(self) -> None:
        self._allowed.set()

    def measure_again(self) -> None:
        """Asks for one more measurement: the window has ended."""
        self._wanted.set()
        self._allowed.set()

    def stop(self) -> None:
        """Ends the thread, before the interpreter does."""
        self._stopped = True
        self._wanted.set()
        self._allowed.set()
        if self._channel is not None:
            self._channel.interrupt()
        self._thread.join(_JOIN_S)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _may_go_on(self) -> bool:
        return self._allowed.is_set() and not self._stopped

    def _run(self) -> None:
        try:
            channel = self._channel = self._open_channel()
            if self._stopped or channel.add(f"host/{self._domain}") > 1:
                return  # another rank of this host does it
            if channel.add("hosts") == 1:
                self._serve(channel)
            else:
                self._measure(channel)
        except (Interrupted, RuntimeError, OSError):
            pass  # the process ends, or the store has gone with the job; the report says what was not measured
        except Exception as error:
            say(f"the clocks of the hosts are no longer compared: {type(error).__name__}: {said(error)}")

    def _serve(self, channel: StoreChannel) -> None:
        ticket = 0
        while not self._stopped:
            ticket += 1
            channel.wait(f"ticket/{ticket}")
            self._allowed.wait()
            name = channel.get(f"ticket/{ticket}").decode("ascii", "replace")
            channel.delete(f"ticket/{ticket}")
            channel.set(f"{name}/go", self._domain.encode())
            with contextlib.suppress(RuntimeError):  # that host died in the middle of its round
                answer(channel, self._now, name, self._may_go_on)

    def _measure(self, channel: StoreChannel) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            self._allowed.wait()
            if self._stopped:
                return
            name = uuid.uuid4().hex  # a key of an earlier start of the job is not taken for one of this round
            channel.set(f"ticket/{channel.add('tickets')}", name.encode())
            self._measure_once(channel, name)
            self._allowed.wait()
            forget(channel, name)

    def _measure_once(self, channel: StoreChannel, name: str) -> None:
        go = f"{name}/go"
        try:
            channel.wait(go)
        except Interrupted:
            decline(channel, name)
            raise
        reference = channel.get(go).decode("utf-8", "replace")
        channel.delete(go)
        probes = ask(channel, self._now, name, self._may_go_on)
        found = best(probes)
        if found is not None:
            self._publish(ClockOffset(reference, found.mono_ns, found.offset_ns, found.bound_ns, len(probes)))
