"""Everything that a user can set, in one table.

Each has one name: the option ``--output-file``, the variable ``DISTPROF_OUTPUT_FILE`` and the key ``output-file`` of a
configuration file are the same.  A new line here reaches them all, and the help of the commands that take it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from distprof.errors import UsageError


class Value(NamedTuple):
    """What something is set to, and where, in words."""

    value: object
    where: str


#: name of an option -> what one place says about it.
Layer = Mapping[str, Value]


_MOST = 1_000_000_000  # iterations, modules: no job has more
_LARGEST = 1e300
_SHOWN = 100


def shown(value: object) -> str:
    """A value that somebody gave, as a sentence can hold it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of too many digits, a list in a list in a list ...
        return f"{type(value).__name__} too large to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _names_a_file(text: str) -> bool:
    """Whether a system call would take it."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class Option:
    """One thing to set.  ``kind`` is int (no less than ``least``), float (``between`` two numbers), bool or str (a text
    that could name a file).
    """

    name: str
    kind: type
    help: str
    metavar: str = ""
    least: int = 0
    between: tuple[float, float] | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"DISTPROF_{self.name.upper()}"

    def checked(self, value: object, where: str) -> Value:
        """Raises UsageError for a value of another kind."""
        if not self._fits(value):
            raise UsageError(f"{where} is {shown(value)}: give {self._wanted(value)}")
        return Value(value, where)

    def _fits(self, value: object) -> bool:
        if type(value) is int and self.kind is int:
            return self.least <= value <= _MOST
        if type(value) in (int, float) and self.kind is float:
            low, high = self.between or (-_LARGEST, _LARGEST)
            return low <= value <= high  # type: ignore[operator]
        if isinstance(value, str) and self.kind is str:
            return _names_a_file(value)
        return type(value) is self.kind

    def of_text(self, text: str, where: str) -> Value:
        """The value that a variable holds.  Raises UsageError for a text that is none."""
        if self.kind is bool:
            if text not in ("0", "1"):
                raise UsageError(f"{where} is {shown(text)}: give 0 or 1")
            return Value(text == "1", where)
        if self.kind is str:
            return self.checked(text, where)
        try:
            value = self.kind(text)
        except ValueError:
            value = text
        return self.checked(value, where)

    def _wanted(self, value: object) -> str:
        if self.kind is int:
            large = type(value) is int and value > _MOST
            return (
                f"a whole number from {self.least} to {_MOST:,}" if large else f"a whole number, {self.least} or more"
            )
        if self.kind is str:
            return "a text that a file could be called" if value and type(value) is str else "a text that is not empty"
        if self.kind is float:
            return "a number from {:g} to {:g}".format(*self.between) if self.between else "a number"
        return "true or false"


#: Whether to record at all: for a file or the environment, since who types ``distprof run`` wants a recording.
ENABLED = Option("enabled", bool, "record at all (default: true)")
#: The window of iterations, which the ranks read.
WINDOW = (
    Option("warmup", int, "iterations to leave unwatched at first (default: 5)", "N"),
    Option("timed", int, "iterations to time, after one in which flops are counted (default: 10)", "N"),
    Option("count", bool, "count flops (default: yes)"),
    Option(
        "count_eager",
        bool,
        "count compiled code module by module: in the counted step it runs in eager form, which "
        "moves that step's loss, with dropout all that follow, and may double its peak memory; left out where "
        "memory is short (default: no)",
    ),
)
#: What ``distprof run`` and ``exec`` take.
RUN = (
    Option("out", str, "where run folders are made (default: runs)", "DIR"),
    Option("name", str, "name of the run (default: from the job, else from script and time)", "NAME"),
    *WINDOW,
    Option("merge", bool, "merge when the job has ended (default: no)"),
)
#: What a run keeps for every later merge of it.
SHOWN = (
    Option("depth", int, "show modules down to this depth; 0 is the model itself, -1 all of it (default: -1)", "N", -1),
    Option("top", int, "classes of module shown at each depth (default: 3)", "N", 1),
    Option("detailed", bool, "show the module tree (default: yes)"),
    Option("plots", bool, "draw plots; without them, those of an earlier merge are removed (default: yes)"),
    Option(
        "peak_tflops",
        float,
        "what each device does at most, for MFU (default: the maker's figure, else what 'distprof peak' measured)",
        "X",
        between=(1e-6, 1e9),
    ),
)
#: What ``distprof merge`` takes.  Where to write is never taken from a run's folder, which may come from elsewhere.
REPORT = (
    *SHOWN,
    Option("output_file", str, "write the report's text here, not to stdout; - is stdout (default: -)", "FILE"),
)
#: What may stand in a configuration file.
ALL = (ENABLED, *RUN, *REPORT)


def from_call(options: Iterable[Option], given: Mapping[str, object]) -> dict[str, Value]:
    """What was ``given`` in a call or on a command line; None leaves the choice to others.  Raises UsageError."""
    return {
        option.name: option.checked(given[option.name], option.name)
        for option in options
        if given.get(option.name) is not None
    }


def from_environment(options: Iterable[Option], environment: Mapping[str, str]) -> dict[str, Value]:
    """What the variables say.  Raises UsageError for one that does not parse."""
    return {
        option.name: option.of_text(environment[option.variable], option.variable)
        for option in options
        if option.variable in environment
    }


def unknown(key: str, known: Iterable[str], where: str) -> UsageError:
    """The error for a ``key`` that nothing is called, with the nearest that something is."""
    names = sorted(known)
    nearest = difflib.get_close_matches(key[:_SHOWN], names, 1)
    return UsageError(
        f"{where} has an unknown key {shown(key)}: "
        + (f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(names)}")
    )
