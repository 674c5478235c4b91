"""Options of a click command from the table of all options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from distprof.config.files import HELP, chosen_file, decide_options, read_config
from distprof.config.option import Layer, Option
from distprof.config.option_sources import unknown_variables
from distprof.console import say

_Command = Callable[..., Any]


def with_options(options: Iterable[Option]) -> Callable[[_Command], _Command]:
    """Adds ``--config`` and ``options`` to a command; an option that is not given is None."""
    wanted = tuple(options)

    def add(function: _Command) -> _Command:
        for option in reversed(wanted):
            function = _click(option)(function)
        path = click.Path(path_type=Path)
        return click.option("--config", type=path, metavar="FILE", help=_sentence(HELP))(function)

    return add


def decided_options(options: Iterable[Option], given: Mapping[str, object], config: Path | None) -> Layer:
    """Returns the options that the command line, the environment or a file sets.  Names misspelt variables on stderr.

    Raises UsageError for an invalid value.
    """
    layer = decide_options(options, given, os.environ, read_config(chosen_file(config, os.environ)))
    for sentence in unknown_variables(os.environ).values():
        say(sentence)
    return layer


def _click(option: Option) -> Callable[[_Command], _Command]:
    text = _sentence(option.help)
    if option.kind is bool:
        both = f"{option.flag}/--no-{option.flag.removeprefix('--')}"
        return click.option(both, option.name, default=None, help=text)
    return click.option(option.flag, option.name, type=option.kind, metavar=option.metavar, help=text)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
