"""Everything that a user can set, in one table.

Each has one name: the option ``--output-file``, the variable ``DISTPROF_OUTPUT_FILE`` and the key ``output-file`` of a
configuration file are the same.  A new line here reaches them all, and the help of the commands that take it.
"""

from __future__ import annotations

import difflib
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


@dataclass(frozen=True)
class Option:
    """One thing to set.  ``kind`` is int (no less than ``least``), float, bool or str (not empty)."""

    name: str
    kind: type
    help: str
    metavar: str = ""
    least: int = 0

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"DISTPROF_{self.name.upper()}"

    def checked(self, value: object, where: str) -> Value:
        """Raises UsageError for a value of another kind."""
        fits = type(value) is self.kind or (self.kind is float and type(value) is int)
        if not fits or (isinstance(value, str) and not value) or (self.kind is int and value < self.least):  # type: ignore[operator]
            raise UsageError(f"{where} is {value!r}: give {self._wanted}")
        return Value(value, where)

    def of_text(self, text: str, where: str) -> Value:
        """The value that a variable holds.  Raises UsageError for a text that is none."""
        if self.kind is bool:
            if text not in ("0", "1"):
                raise UsageError(f"{where} is {text!r}: give 0 or 1")
            return Value(text == "1", where)
        if self.kind is str:
            return self.checked(text, where)
        try:
            value = self.kind(text)
        except ValueError:
            value = text
        return self.checked(value, where)

    @property
    def _wanted(self) -> str:
        names = {bool: "true or false", str: "a text that is not empty", float: "a number"}
        return names.get(self.kind, f"a whole number, {self.least} or more")


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
    ),
)
#: What ``distprof merge`` takes.  Where to write is never taken from a run's folder, which may come from elsewhere.
REPORT = (
    *SHOWN,
    Option("output_file", str, "write the report's text here, not to stdout; - is stdout (default: -)", "FILE"),
)
#: What may stand in a configuration file.
ALL = (ENABLED, *RUN, *REPORT)


def of_call(options: Iterable[Option], given: Mapping[str, object]) -> dict[str, Value]:
    """What was ``given`` in a call or on a command line; None leaves the choice to others.  Raises UsageError."""
    return {
        option.name: option.checked(given[option.name], option.name)
        for option in options
        if given.get(option.name) is not None
    }


def of_environment(options: Iterable[Option], environment: Mapping[str, str]) -> dict[str, Value]:
    """What the variables say.  Raises UsageError for one that does not parse."""
    return {
        option.name: option.of_text(environment[option.variable], option.variable)
        for option in options
        if option.variable in environment
    }


def unknown(key: str, known: Iterable[str], where: str) -> UsageError:
    """The error for a ``key`` that nothing is called, with the nearest that something is."""
    names = sorted(known)
    nearest = difflib.get_close_matches(key, names, 1)
    return UsageError(
        f"{where} has an unknown key {key!r}: "
        + (f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(names)}")
    )
