"""The one way to speak to the user outside a report: a line on stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

from distprof.printable import on_one_line


def say(sentence: str) -> None:
    """``distprof: sentence`` on stderr, where there is one: never on stdout, which is the job's.

    What a full disk or a closed pipe does not take is gone: were it kept in the stream, Python would try again when it
    ends, and make 120 of the job's exit code.
    """
    stream, line = sys.stderr, f"distprof: {on_one_line(sentence)}\n"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if stream is None or _is_a_file_of_the_script(stream):
            return
        stream.flush()
        if type(stream) is io.TextIOWrapper:
            os.write(stream.fileno(), line.encode(stream.encoding, "backslashreplace"))
        else:  # a notebook's, or the script's own
            stream.write(line)
            stream.flush()


def _is_a_file_of_the_script(stream: Any) -> bool:
    """Whether the number of stderr was free, and is now that of a file which the script opened for itself: standard
    streams are inherited, what Python opens is not.
    """
    try:
        number: int = stream.fileno()
    except (OSError, ValueError, AttributeError):  # no file: a notebook's, a test's
        return False
    return number <= 2 and not os.get_inheritable(number)
