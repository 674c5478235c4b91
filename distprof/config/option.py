"""One option that a user can set: its name, type, default and help, and the check of a value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from distprof.errors import UsageError
from distprof.plain import dataclass

#: What the names of all variables begin with.
PREFIX = "DISTPROF_"
_MOST = 1_000_000_000  # iterations, modules: no job has more
_LARGEST = 1e300
_LONGEST_SHOWN = 100


class Value(NamedTuple):
    """The value of an option, and the place that set it, in words."""

    value: object
    where: str


#: name of an option -> its value in one place.
Layer = Mapping[str, Value]


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
        return f"{PREFIX}{self.name.upper()}"

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
