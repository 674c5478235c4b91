"""Sees the sends and receives of this process, which gloo does not write into torch's flight recorder.

Every ``send``, ``recv``, ``isend``, ``irecv`` and ``batch_isend_irecv`` of torch.distributed calls a method of
ProcessGroup, which is patched during the window: a function that the script imported earlier is seen too, and
``P2POp``, which compares functions, is not affected.  Sends and receives of C++ code, of a group that is a Python class
with its own methods, and of other libraries are not seen.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import Any

from distprof.hooks.patches import CallPatch, OnError
from distprof.probes.collectives.protocol import ANY_PEER, Entry, Seen
from distprof.records import OTHER_THREAD, TRAINING_THREAD
from distprof.topology.imported import group_ranks, imported

_C10D = "torch._C._distributed_c10d"
SEND, RECEIVE = "send", "recv"
#: The number of a receive from any rank while its sender is not known.
_NO_NUMBER = -1


class Messages:
    """The source of sends and receives."""

    name = "torch.distributed's ProcessGroup"
    on_wall_clock = False

    def __init__(self, training_thread: int, mono_ns: Callable[[], int], on_error: OnError) -> None:
        self.unseen = ""
        self.mono_ns = mono_ns
        self.waits: dict[int, tuple[weakref.ref[Any], Entry, Any]] = {}  # by the id of the Work that ends it
        self._training_thread = training_thread
        self._entries: list[Entry] = []
        self._counts: dict[tuple[str, str, int, int], int] = {}
        self._ranks: dict[str, tuple[int, ...]] = {}
        group, work = c10d_type("ProcessGroup"), c10d_type("Work")
        self._patches = [] if group is None or work is None else self._new_patches(group, work, on_error)

    def open(self, began_ns: int) -> None:
        world = imported("torch.distributed.distributed_c10d", "_world")
        if world is None or not world.pg_map:
            self.unseen = "no process group was initialized"
        elif not self._patches:
            self.unseen = "this torch has no ProcessGroup to patch"
        else:
            for patch, handler in self._patches:
                patch.open(handler)

    def step_ended(self) -> None:
        pass

    def close(self) -> Seen:
        for patch, _ in self._patches:
            patch.close()
        self.waits.clear()
        return Seen(self._entries)

    def _new_patches(self, group: type, work: type, on_error: OnError) -> list[tuple[CallPatch, Any]]:
        calls = [("send", _Calls(self, SEND)), ("recv", _Calls(self, RECEIVE))]
        calls += [("recv_anysource", _Calls(self, RECEIVE, from_any=True))]
        patches: list[tuple[CallPatch, Any]] = [
            (CallPatch(((group, name),), "a send or receive", on_error), handler)
            for name, handler in calls
            if hasattr(group, name)
        ]
        waits = CallPatch(((work, "wait"),), "a wait for a send or receive", on_error, only=self.waits)
        return [*patches, (waits, _Waits(self))]

    def add(self, op: str, group: Any, peer: int, tag: int, size: int) -> Entry:
        """Adds a send to, or a receive from, the rank ``peer`` of the group (ANY_PEER: from any) that begins now."""
        world = imported("torch.distributed.distributed_c10d", "_world")
        name = str(world.pg_names.get(group, "")) if world is not None else ""
        received = size if op == RECEIVE else 0
        thread = TRAINING_THREAD if get_ident() == self._training_thread else OTHER_THREAD
        entry = Entry(self.mono_ns(), name, _NO_NUMBER, op, size - received, received, ANY_PEER, tag, thread)
        self.name_peer(entry, group, peer)
        self._entries.append(entry)
        return entry

    def name_peer(self, entry: Entry, group: Any, peer: int) -> None:
        """Sets the peer, given by its rank in the group, and the number of the message."""
        if entry.group not in self._ranks:
            self._ranks[entry.group] = group_ranks(group)
        ranks = self._ranks[entry.group]
        if 0 <= peer < len(ranks):
            entry.peer = ranks[peer]
            key = entry.group, entry.op, entry.peer, entry.tag
            entry.number = self._counts.get(key, 0)
            self._counts[key] = entry.number + 1

    def remove(self, entry: Entry) -> None:
        """Removes an entry whose call raised."""
        self._entries.remove(entry)

    def wait_follows(self, work: Any, entry: Entry, group: Any) -> None:
        """Expects that the script waits for ``work``, which is not kept alive."""
        key, waits = id(work), self.waits
        waits[key] = weakref.ref(work, lambda _: waits.pop(key, None)), entry, group


class _Calls:
    """Handles the calls of one method of ProcessGroup: ``(group, tensors, peer, tag)``, or without ``peer``."""

    def __init__(self, messages: Messages, op: str, *, from_any: bool = False) -> None:
        self._messages = messages
        self._op = op
        self._from_any = from_any

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Entry, Any] | None:
        names = (
            ("tensors", "tag") if self._from_any else ("tensors", "dstRank" if self._op == SEND else "srcRank", "tag")
        )
        given = dict(zip(names, args[1:], strict=False)) | kwargs
        if not args or "tensors" not in given:
            return None
        peer = ANY_PEER if self._from_any else int(given.get(names[1], ANY_PEER))
        size = sum(tensor.numel() * tensor.element_size() for tensor in given["tensors"])
        return self._messages.add(self._op, args[0], peer, int(given.get("tag", 0)), size), args[0]

    def end(self, token: tuple[Entry, Any], result: Any, raised: bool) -> None:
        if raised:
            self._messages.remove(token[0])
        elif result is not None:
            self._messages.wait_follows(result, *token)


class _Waits:
    """Handles ``Work.wait`` of sends and receives."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Entry, Any, Any]:
        _, entry, group = self._messages.waits.pop(id(args[0]))
        entry.waited_from_ns = self._messages.mono_ns()
        return entry, group, args[0]

    def end(self, token: tuple[Entry, Any, Any], result: Any, raised: bool) -> None:
        entry, group, work = token
        entry.waited_until_ns = self._messages.mono_ns()
        if entry.peer == ANY_PEER and not raised and hasattr(work, "_source_rank"):
            self._messages.name_peer(entry, group, work._source_rank())


def c10d_type(name: str) -> type | None:
    """Returns a class of torch's C++ part for process groups; None where it was not imported, or has none."""
    found = getattr(sys.modules.get(_C10D), name, None)
    return found if isinstance(found, type) else None
