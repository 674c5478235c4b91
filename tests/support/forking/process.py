"""The process of a :class:`support.forking.server.ForkServer`: imports torch, and forks for each client.

python process.py DESCRIPTOR_OF_A_LISTENING_SOCKET
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import functools
import gc
import importlib
import json
import multiprocessing.process
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

#: What nearly every script or launcher imports; the first optimizer imports torch._dynamo.
_IMPORTED = ("torch", "torch._dynamo", "torch.distributed.launcher.api")


@dataclass(frozen=True)
class Request:
    words: list[str]  # what would follow ``python``
    folder: str
    environment: dict[str, str]
    streams: list[int]


class Server:
    """Forks for its clients until stdin ends."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._clients: dict[int, socket.socket] = {}  # by the pid of its fork
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)

    def serve(self) -> Request:
        """Returns in each fork."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listening:
                    if (request := self._accept()) is not None:
                        return request
                elif key.fileobj is sys.stdin:
                    self._end()
                elif key.data in self._clients:
                    self._close(key.data, process=key.fileobj)

    def _accept(self) -> Request | None:
        client, _ = self._listening.accept()
        request = _read(client)
        pid = os.fork()
        if pid == 0:
            self._close_sockets(client)
            return request
        for descriptor in request.streams:
            os.close(descriptor)
        with suppress(OSError):
            client.sendall(b"%d\n" % pid)
        self._clients[pid] = client
        self._selector.register(client, selectors.EVENT_READ, pid)
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
        return None

    def _close_sockets(self, client: socket.socket) -> None:
        """In a fork: an object that is left would close another file of that number when it is collected."""
        self._selector.close()
        for one in (self._listening, client, *self._clients.values()):
            one.close()

    def _close(self, pid: int, process: Any) -> None:
        """The fork has ended, or its client has: then it was killed, and the fork is."""
        client = self._clients[pid]
        if process is client:
            os.kill(pid, signal.SIGKILL)
            self._selector.unregister(client)
            return
        _, status = os.waitpid(pid, 0)
        del self._clients[pid]
        self._selector.unregister(process)
        os.close(process)
        with suppress(KeyError):
            self._selector.unregister(client)
        with suppress(OSError):
            client.sendall(b"%d\n" % status)
        client.close()

    def _end(self) -> None:
        for pid in self._clients:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)


def _read(client: socket.socket) -> Request:
    size, streams, _, _ = socket.recv_fds(client, 8, 3)
    with client.makefile("rb") as asked:
        return Request(**json.loads(asked.read(int.from_bytes(size, "big"))), streams=streams)


def _become(request: Request, path: list[str]) -> None:
    """Makes this fork what a new Python is, and runs its script."""
    for number, descriptor in enumerate(request.streams):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    tempfile.tempdir = None  # the folder of the server's own environment
    multiprocessing.process.ORIGINAL_DIR = request.folder  # type: ignore[attr-defined]  # where spawn finds the script
    _end_without_destructors()
    _let_gloo_end()
    _start_site(path)
    words = request.words
    if words[0] == "-u":
        words = words[1:]
        for stream in sys.stdout, sys.stderr:
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        _run(words[1].encode(), "<string>")
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        _run(Path(words[0]).read_bytes(), words[0], __file__=words[0])


def _end_without_destructors() -> None:
    """Ends the process when Python has shut down, before the destructors of the libraries that are loaded now.

    What C registers from here on still runs, and C's streams are flushed.
    """
    libc = ctypes.CDLL(None)
    libc.on_exit(libc._exit, None)  # is called with the exit code
    libc.__cxa_atexit(libc.fflush, None, None)


def _let_gloo_end() -> None:
    """Neither destroys process groups nor ends before gloo's threads have let go of the last collective.

    They may need Python's lock for that, after the script has its result.  Where Python shuts down meanwhile, torch
    aborts the process, and where a script frees its last reference to a group meanwhile, it waits without end: torch's
    own bug, met in one of some hundred jobs on a busy machine.
    """
    from torch import distributed

    atexit.register(_wait_for_gloo)  # what the script registers runs earlier
    destroy = distributed.destroy_process_group

    @functools.wraps(destroy)
    def wait_and_destroy(*arguments: Any, **named: Any) -> None:
        _wait_for_gloo()
        destroy(*arguments, **named)

    distributed.destroy_process_group = wait_and_destroy


def _wait_for_gloo() -> None:
    """Waits until its threads sleep, which is seen twice: a thread that waits for Python's lock sleeps, too."""
    looks = 0
    for _ in range(10_000):
        time.sleep(0.001)  # without Python's lock
        looks = 0 if _gloo_works() else looks + 1
        if looks == 2:
            return


def _gloo_works() -> bool:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            name, _, others = (thread / "stat").read_text().partition(" (")[2].rpartition(") ")
            if name == "pt_gloo_runloop" and others.startswith("R"):
                return True
    return False


def _start_site(path: list[str]) -> None:
    """What Python does before it looks at its script."""
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *path]
    importlib.invalidate_caches()
    sys.modules.pop("sitecustomize", None)
    with suppress(ModuleNotFoundError):
        importlib.import_module("sitecustomize")


def _run(code: bytes, name: str, **names: str) -> None:
    """As Python does: what the script leaves in ``__main__`` lives until the interpreter shuts down."""
    main = ModuleType("__main__")
    vars(main).update(names, __builtins__=builtins)
    sys.modules["__main__"] = main
    exec(compile(code, name, "exec"), vars(main))


class _Kept:
    """Modules that Python's shutdown does not clear: it clears those that it finds in ``sys.modules``."""

    def __init__(self) -> None:
        self._modules: dict[str, ModuleType] = {}
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._modules))  # never freed
        self._earlier = set(sys.modules)
        atexit.register(self._forget)  # what is registered later runs earlier

    def keep(self) -> None:
        """Keeps what was imported since this object was made."""
        self._modules.update((name, one) for name, one in sys.modules.items() if name not in self._earlier)
        for one in list(weakref.finalize._registry):  # type: ignore[attr-defined]
            one.atexit = False  # those of torch's operators

    def _forget(self) -> None:
        for name, one in self._modules.items():
            if sys.modules.get(name) is one:
                del sys.modules[name]


if __name__ == "__main__":
    kept = _Kept()
    for name in _IMPORTED:
        importlib.import_module(name)
    kept.keep()
    gc.collect()
    gc.freeze()  # else each fork's collections copy the pages of all these objects
    _become(Server(socket.socket(fileno=int(sys.argv[1]))).serve(), sys.path[1:])
