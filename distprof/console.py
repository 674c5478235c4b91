"""Messages to the user outside of a report: lines on stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

from distprof.printable import on_one_line


def say(sentence: str) -> None:
    """Writes ``distprof: sentence`` to stderr, if there is one; never to stdout, which belongs to the job.

    Text that a full disk or a closed pipe does not take is dropped.  If it stayed in the stream, Python would try again
    at exit, and change the job's exit code to 120.
    """
    stream, line = sys.stderr, f"distprof: {on_one_line(sentence)}\n"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if stream is None or _belongs_to_script(stream):
            return
        stream.flush()
        if type(stream) is io.TextIOWrapper:
            os.write(stream.fileno(), line.encode(stream.encoding, "backslashreplace"))
        else:  # a stream of a notebook or of the script
            stream.write(line)
            stream.flush()


def _belongs_to_script(stream: Any) -> bool:
    """Whether stderr was closed, and its number now belongs to a file that the script has opened.

    Standard streams are inheritable; files that Python opens are not.
    """
    try:
        number: int = stream.fileno()
    except (OSError, ValueError, AttributeError):  # not a file: a stream of a notebook or a test
        return False
    return number <= 2 and not os.get_inheritable(number)
