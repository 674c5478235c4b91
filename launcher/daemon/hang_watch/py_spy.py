"""The stacks of a process from outside, by ``py-spy dump``: also where the process is stopped, or holds Python's lock.

It does not stop the process (``--nonblocking``): a process that is stopped by a signal would keep py-spy waiting.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from distprof.heartbeat.rank_look import Frame, Stack

_NAME = "py-spy"
_MOST_BYTES = 1 << 22
_MOST_THREADS, _MOST_FRAMES, _MOST_TEXT = 256, 200, 500


def executable() -> str | None:
    """Returns the path of py-spy: that of this Python, else the first one on PATH; None without it."""
    beside = Path(sysconfig.get_path("scripts")) / _NAME
    return str(beside) if beside.is_file() else shutil.which(_NAME)


class Dump:
    """A dump that runs."""

    def __init__(self, program: str, pid: int) -> None:
        """Raises OSError."""
        self._output: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  closed in end()
        self._pid = pid
        try:
            self._process = subprocess.Popen(
                [program, "dump", "--nonblocking", "--full-filenames", "--json", "--pid", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.DEVNULL,
            )
        except BaseException:
            self._output.close()
            raise

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> tuple[Stack, ...]:
        """Ends the dump if it still runs.  Returns the stacks; none where there are none."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        with self._output as output:
            output.seek(0)
            content = output.read(_MOST_BYTES + 1)
        return parse(content, self._pid) if len(content) <= _MOST_BYTES else ()


def parse(content: bytes, pid: int) -> tuple[Stack, ...]:
    """Returns the stacks in py-spy's JSON: the first thread of the process counts as the one that trains."""
    try:
        threads = json.loads(content)
        return tuple(_stack(thread, pid) for thread in threads[:_MOST_THREADS])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()


def _stack(thread: Mapping[str, Any], pid: int) -> Stack:
    name = str(thread.get("thread_name") or "")[:_MOST_TEXT]
    is_first = thread.get("os_thread_id") == pid or name == "MainThread"
    frames = tuple(
        Frame(str(frame["name"])[:_MOST_TEXT], str(frame["filename"])[:_MOST_TEXT], int(frame["line"]))
        for frame in thread["frames"][:_MOST_FRAMES]
    )
    return Stack(name, is_first, frames)
