"""The table of all options: name, type, default and help of each.

An option has one name in three places: ``--output-file`` on the command line, ``DISTPROF_OUTPUT_FILE`` in the
environment and ``output-file`` in a configuration file.  A new line in the table is enough for all three, and for the
help of the commands that take it.  Other modules read the defaults from ``DEFAULTS``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from distprof.errors import UsageError
from distprof.suggestions import did_you_mean


class Value(NamedTuple):
    """The value of an option, and the place that set it, in words."""

    value: object
    where: str


#: name of an option -> its value in one place.
Layer = Mapping[str, Value]


_MOST = 1_000_000_000  # iterations, modules: no job has more
_LARGEST = 1e300
_LONGEST_SHOWN = 100
_PREFIX = "DISTPROF_"

#: The ``output_file`` that means stdout.
STDOUT = "-"


def shown(value: object) -> str:
    """Returns a user's value as a short text for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of too many digits, a list in a list in a list ...
        return f"{type(value).__name__} too large to show"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _is_file_name(text: str) -> bool:
    """Whether a system call accepts the text as the name of a file."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class Option:
    """One option.  ``kind`` is int (at least ``least``, or ``between`` two numbers), float (``between`` two numbers),
    bool or str (a text that can be the name of a file).
    """

    name: str
    kind: type
    text: str  # what it does, without the default
    metavar: str = ""
    default: Any = None  # None: the run decides, as ``default_text`` says
    default_text: str = ""
    least: int = 0
    between: tuple[float, float] | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"{_PREFIX}{self.name.upper()}"

    @property
    def help(self) -> str:
        """The text with the default, for the help of a command."""
        shown_default = ("yes" if self.default else "no") if self.kind is bool else str(self.default)
        return f"{self.text} (default: {self.default_text or shown_default})"

    def checked(self, value: object, where: str) -> Value:
        """Returns the value with its place.  Raises UsageError for a value of another kind."""
        if not self._fits(value):
            raise UsageError(f"{where} is {shown(value)}: give {self._wanted(value)}")
        return Value(value, where)

    def _fits(self, value: object) -> bool:
        if type(value) is int and self.kind is int:
            low, high = self.between or (self.least, _MOST)
            return low <= value <= high
        if type(value) in (int, float) and self.kind is float:
            low, high = self.between or (-_LARGEST, _LARGEST)
            return low <= value <= high  # type: ignore[operator]
        if isinstance(value, str) and self.kind is str:
            return _is_file_name(value)
        return type(value) is self.kind

    def parse(self, text: str, where: str) -> Value:
        """Returns the value of a variable's text.  Raises UsageError for a text that is no value."""
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
            if self.between:
                return "a whole number from {:g} to {:,g}".format(*self.between)
            large = type(value) is int and value > _MOST
            return (
                f"a whole number from {self.least} to {_MOST:,}" if large else f"a whole number, {self.least} or more"
            )
        if self.kind is str:
            return "a text that can name a file" if value and type(value) is str else "a text that is not empty"
        if self.kind is float:
            return "a number from {:g} to {:g}".format(*self.between) if self.between else "a number"
        return "true or false"


#: Whether to record at all.  It is no option of the command line: ``distprof run`` is typed to record.
ENABLED = Option("enabled", bool, "record at all", default=True)
#: The recording window; the ranks read these.
WINDOW = (
    Option("warmup", int, "first iterations, in which only phases are timed", "N", default=5),
    Option("timed", int, "iterations to time, after one in which flops are counted", "N", default=10),
    Option(
        "every",
        int,
        "record such a window again every N iterations; of all but the last few, summaries stay",
        "N",
        default_text="once",
        least=1,
    ),
    Option("count", bool, "count flops", default=True),
    Option(
        "count_eager",
        bool,
        "count compiled code module by module: in the counted step it runs in eager form, which changes the loss of "
        "that step (with dropout also of all later steps) and may double its peak memory; left out where memory is "
        "short",
        default=False,
    ),
    Option("collectives", bool, "record the collectives, sends and receives of timed iterations", default=True),
    Option(
        "collective_timing",
        bool,
        "switch NCCL's timing of collectives on in the window, for their durations: torch warns that it may make the "
        "watchdog hang, it costs time in each collective, and it stays on until the job ends",
        default=False,
    ),
)
OUT = Option(
    "out",
    str,
    "folder in which run folders are made, or a URL of fsspec (s3://BUCKET/RUNS) to which each is copied from runs/",
    "DIR",
    default="runs",
)
#: What the daemon of each node serves; it reads these itself.
METRICS = (
    Option(
        "metrics",
        int,
        "serve metrics of the ranks for Prometheus on this port of each node; 0: a free one, named in the run's folder",
        "PORT",
        default_text="no metrics",
        between=(0, 65_535),
    ),
    Option(
        "metrics_host", str, "address on which metrics are served; they have no password", "HOST", default="127.0.0.1"
    ),
    Option(
        "metrics_textfile",
        str,
        "write the metrics into a file of this folder, for node-exporter's textfile collector",
        "DIR",
        default_text="no file",
    ),
)
#: The options of ``distprof run`` and ``exec``.
RUN = (
    OUT,
    Option("name", str, "name of the run", "NAME", default_text="from the job, else from script and time"),
    *WINDOW,
    Option("merge", bool, "merge when the job has ended", default=False),
    Option(
        "daemon",
        bool,
        "start a small process on each node, which reads the heartbeat of its ranks for 'distprof top', 'status' and "
        "'trigger'",
        default=True,
    ),
    Option(
        "stall",
        float,
        "an iteration counts as stuck after so many seconds, and after 20 times the 99th percentile of the rank's own; "
        "the first iterations, evaluation and checkpoints may take longer",
        "S",
        default=60.0,
        between=(0.1, 1e6),
    ),
    Option(
        "quiet",
        bool,
        "write no line into the job's log when a rank begins to be the slowest again and again, and when that ends",
        default=False,
    ),
    *METRICS,
)
#: The options that a run keeps in its folder for later merges.
SHOWN = (
    Option("depth", int, "show modules to this depth; 0: the model only, -1: all modules", "N", default=-1, least=-1),
    Option("top", int, "classes of module shown at each depth", "N", default=3, least=1),
    Option("detailed", bool, "show the module tree", default=True),
    Option("plots", bool, "draw plots; without them, plots of an earlier merge are removed", default=True),
    Option("page", bool, "write report.html; without it, that of an earlier merge is removed", default=True),
    Option(
        "peak_tflops",
        float,
        "peak TFLOPS of each device, for MFU",
        "X",
        default_text="the maker's figure, else what 'distprof peak' measured",
        between=(1e-6, 1e9),
    ),
)
#: The options of ``distprof merge``.  Where to write is never read from a run's folder, which may come from elsewhere.
REPORT = (
    *SHOWN,
    Option("full", bool, "print the whole report, not its first page only", default=False),
    Option("parquet", bool, "write the tables as Parquet files too, with pyarrow", default=False),
    Option("jobs", int, "processes that read a large run", "N", default_text="one for each processor", least=1),
    Option("output_file", str, "write the report's text to this file; - is stdout", "FILE", default=STDOUT),
)
#: All options; a configuration file may set each of them.
ALL = (ENABLED, *RUN, *REPORT)
#: name of an option -> its default; None where the run decides.
DEFAULTS: Mapping[str, Any] = {option.name: option.default for option in ALL}
#: Variables that are no options: the configuration file; the run's folder, which distprof sets for the ranks; and
#: what distprof's own test suite requires to be installed.
_OTHER_VARIABLES = ("DISTPROF_CONFIG", "DISTPROF_RUN", "DISTPROF_STACKS", "DISTPROF_BROWSER", "DISTPROF_PROMETHEUS")


def with_defaults(options: Iterable[Option], layer: Layer) -> dict[str, Any]:
    """Returns the value of each option: from ``layer``, else its default."""
    return {option.name: layer[option.name].value if option.name in layer else option.default for option in options}


def from_call(options: Iterable[Option], given: Mapping[str, object]) -> dict[str, Value]:
    """Returns the options that a call or a command line has ``given``, without those that are None.

    Raises UsageError for a value of another kind.
    """
    return {
        option.name: option.checked(given[option.name], option.name)
        for option in options
        if given.get(option.name) is not None
    }


def from_environment(options: Iterable[Option], environment: Mapping[str, str]) -> dict[str, Value]:
    """Returns the options that the environment sets.  Raises UsageError for a text that is no value."""
    return {
        option.name: option.parse(environment[option.variable], option.variable)
        for option in options
        if option.variable in environment
    }


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the ``DISTPROF_`` variables that distprof does not read, each with a sentence for the user."""
    known = [name.removeprefix(_PREFIX) for name in (*(option.variable for option in ALL), *_OTHER_VARIABLES[:1])]
    unread = sorted(
        name
        for name in environment
        if name.startswith(_PREFIX) and name not in _OTHER_VARIABLES and name.removeprefix(_PREFIX) not in known
    )
    return {
        name: f"the environment has an unknown variable {shown(name)}: "
        + _suggestion(name.removeprefix(_PREFIX), known, _PREFIX)
        for name in unread
    }


def unknown(key: str, known: Iterable[str], where: str) -> UsageError:
    """Returns the error for an unknown ``key``, with the known key that is nearest to it."""
    return UsageError(f"{where} has an unknown key {shown(key)}: {_suggestion(key, known)}")


def _suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    names = sorted(known)
    return did_you_mean(name, names, prefix) or f"known are {', '.join(prefix + each for each in names)}"
