"""The values of options from each place that can set them: a call or command line, the environment, the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distprof.config.option import PREFIX, Layer, Option, Value, shown
from distprof.config.options import ALL
from distprof.errors import UsageError
from distprof.suggestions import did_you_mean

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
    known = [name.removeprefix(PREFIX) for name in (*(option.variable for option in ALL), *_OTHER_VARIABLES[:1])]
    unread = sorted(
        name
        for name in environment
        if name.startswith(PREFIX) and name not in _OTHER_VARIABLES and name.removeprefix(PREFIX) not in known
    )
    return {
        name: f"the environment has an unknown variable {shown(name)}: "
        + _suggestion(name.removeprefix(PREFIX), known, PREFIX)
        for name in unread
    }


def unknown(key: str, known: Iterable[str], where: str) -> UsageError:
    """Returns the error for an unknown ``key``, with the known key that is nearest to it."""
    return UsageError(f"{where} has an unknown key {shown(key)}: {_suggestion(key, known)}")


def _suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    names = sorted(known)
    return did_you_mean(name, names, prefix) or f"known are {', '.join(prefix + each for each in names)}"
