"""Starts scripts as forks of one process that has imported torch: importing it is most of what a small script does.

    server = ForkServer(clean_env)
    subprocess.run([server.python, "train.py", "--steps", "3"], cwd=..., env=...)

Each script has a process, a folder, an environment, standard streams and an exit code of its own, as if Python had been
started anew: ``sitecustomize`` runs first, then the script as ``__main__``, and then the interpreter shuts down.  Three
things differ: torch is imported before all of that; it is not torn down at the end, which takes 0.3 s (what the script
has imported and made is); and the parent is not the process that asked (that process waits, and passes signals on).  A
test of how a process starts, of who started it, or of how torch ends needs a real start.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_MAIN, _CLIENT = (Path(__file__).with_name(name) for name in ("process.py", "client.py"))


class ForkServer:
    """The process that forks; it lives as long as this process."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="distprof-"))
        address = self._folder / "socket"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(address))
            listening.listen()
            self._process = subprocess.Popen(
                [sys.executable, str(_MAIN), str(listening.fileno())],
                env=env,
                stdin=subprocess.PIPE,  # its end says that this process has ended
                stdout=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
            )
        #: An executable in the place of ``python``.
        self.python = self._folder / "python"
        client = _CLIENT.read_text(encoding="utf-8")
        self.python.write_text(f"#!{sys.executable} -IS\n{client}\n\nrun({str(address)!r})\n", encoding="utf-8")
        self.python.chmod(0o755)
        atexit.register(self._close)

    def _close(self) -> None:
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def _server(env: frozenset[tuple[str, str]]) -> ForkServer:
    return ForkServer(dict(env))


def forking_python(env: Mapping[str, str]) -> Path:
    """Returns the executable of the one fork server of this process that was started with these variables."""
    return _server(frozenset(env.items())).python
