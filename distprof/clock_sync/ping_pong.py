"""One round of messages between two hosts, from which follows by how much their clocks differ.

The asking side sends at t1, the other side receives at t2 and replies at t3, and the reply arrives at t4; t1 and t4
are times of the first clock, t2 and t3 of the second.  The second clock is ahead by ((t2 - t1) + (t3 - t4)) / 2, with
an error of at most half the round trip (t4 - t1) - (t3 - t2), however unequal the two ways are (Cristian 1989; RFC
5905, section 8).  The probe with the smallest round trip is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

#: Probes of one round, unless one side has to end it earlier.
PROBES = 100

MORE, LAST = b"more", b"last"
#: Clocks that differ by more than this differ by mistake.
_LARGEST_OFFSET_NS = 1 << 62


class Interrupted(Exception):
    """A wait ended because the channel is to be closed."""


class Channel(Protocol):
    """Messages between hosts: values under keys."""

    def add(self, key: str) -> int:
        """Adds one to a counter that starts at 0, and returns it."""
        ...

    def set(self, key: str, value: bytes) -> None: ...

    def get(self, key: str) -> bytes:
        """Returns the value of a key that is there."""
        ...

    def wait(self, key: str, *, peer: bool = False) -> None:
        """Returns once the key is there; ``peer``: a host that is known to be there is about to write it.

        Raises Interrupted when the channel is to be closed.
        """
        ...

    def delete(self, key: str) -> bool:
        """Returns whether the key was there."""
        ...


@dataclass(frozen=True)
class Probe:
    """One exchange: times in ns, ``t1`` and ``t4`` of the own clock, ``t2`` and ``t3`` of the other one."""

    t1: int
    t2: int
    t3: int
    t4: int

    @property
    def round_trip_ns(self) -> int:
        return (self.t4 - self.t1) - (self.t3 - self.t2)

    @property
    def offset_ns(self) -> int:
        """The other clock minus the own one."""
        return ((self.t2 - self.t1) + (self.t3 - self.t4)) // 2

    @property
    def bound_ns(self) -> int:
        """The largest error of the offset, rounding included."""
        return self.round_trip_ns // 2 + 1

    @property
    def mono_ns(self) -> int:
        """The time of the own clock at which the offset holds: the middle of the exchange."""
        return (self.t1 + self.t4) // 2


def ask(channel: Channel, now: Callable[[], int], name: str, may_go_on: Callable[[], bool]) -> list[Probe]:
    """Returns the probes of the round ``name`` with a host that calls :func:`answer`.

    ``may_go_on`` is asked before each probe; without it the round ends early.  :func:`forget` removes its keys.
    """
    sent: list[tuple[int, int]] = []
    reply, ping = MORE, ""
    try:
        while reply == MORE and len(sent) < PROBES and may_go_on():
            ping, pong = _keys(name, len(sent))
            began = now()
            channel.set(ping, MORE)
            channel.wait(pong, peer=True)
            sent.append((began, now()))
            reply = channel.get(pong)
        if reply == MORE:
            decline(channel, name, len(sent))
        channel.wait(_times_key(name), peer=True)
    except Interrupted:
        decline(channel, name, len(sent) + 1 if ping == _keys(name, len(sent))[0] else len(sent))
        raise
    return _joined(sent, channel.get(_times_key(name)))


def decline(channel: Channel, name: str, number: int = 0) -> None:
    """Tells the other side, in place of the probe with this number, that none follows."""
    channel.set(_keys(name, number)[0], LAST)


def answer(channel: Channel, now: Callable[[], int], name: str, may_go_on: Callable[[], bool]) -> None:
    """Answers the probes of the round ``name`` until one side ends it."""
    times: list[int] = []
    reply, interrupted = MORE, None
    while reply == MORE:
        ping, pong = _keys(name, len(times) // 2)
        try:
            channel.wait(ping, peer=True)
        except Interrupted as ended:
            interrupted = ended
            channel.set(pong, LAST)
            break
        received = now()
        if channel.get(ping) != MORE:
            break
        reply = MORE if may_go_on() and len(times) < 2 * PROBES else LAST
        times += received, now()
        channel.set(pong, reply)
    channel.set(_times_key(name), np.array(times, "<i8").tobytes())
    if interrupted is not None:
        raise interrupted


def forget(channel: Channel, name: str) -> None:
    """Removes the keys of an ended round."""
    for number in range(PROBES + 1):
        ping, pong = _keys(name, number)
        if not channel.delete(ping):
            break
        channel.delete(pong)
    channel.delete(_times_key(name))


def best(probes: Sequence[Probe]) -> Probe | None:
    """Returns the probe with the smallest round trip; None if there is none with a possible one."""
    possible = [probe for probe in probes if probe.round_trip_ns >= 0 and abs(probe.offset_ns) < _LARGEST_OFFSET_NS]
    return min(possible, key=lambda probe: probe.round_trip_ns, default=None)


def _keys(name: str, number: int) -> tuple[str, str]:
    return f"{name}/ping/{number}", f"{name}/pong/{number}"


def _times_key(name: str) -> str:
    return f"{name}/times"


def _joined(sent: Sequence[tuple[int, int]], received: bytes) -> list[Probe]:
    """Returns the probes for which the other side, whose data are from elsewhere, has sent its times."""
    if len(received) % 16:
        return []
    times = np.frombuffer(received[: 16 * len(sent)], "<i8").reshape(-1, 2).tolist()
    return [Probe(t1, t2, t3, t4) for (t1, t4), (t2, t3) in zip(sent, times, strict=False)]
