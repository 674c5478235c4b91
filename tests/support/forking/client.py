"""Runs in the place of ``python``: asks a :class:`support.forking.server.ForkServer` for a fork, and ends as it ends.

The executable is this text, a line before that names the interpreter, and a call of :func:`run` behind.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def run(server: str) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(server)
        folder = os.getcwd()  # noqa: PTH109  pathlib would take as long to import as all else here
        request = {"words": sys.argv[1:], "folder": folder, "environment": dict(os.environ)}
        text = json.dumps(request).encode()
        socket.send_fds(link, [len(text).to_bytes(8, "big")], [0, 1, 2])
        link.sendall(text)
        with link.makefile("rb") as answers:
            pid = int(answers.readline())
            for number in _PASSED_ON:
                signal.signal(number, lambda number, _: os.kill(pid, number))
            code = os.waitstatus_to_exitcode(int(answers.readline()))
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
