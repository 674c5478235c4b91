"""Options of a click command from the table of everything that can be set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from distprof.config.files import HELP
from distprof.config.options import Option

_Command = Callable[..., Any]


def with_options(options: Iterable[Option]) -> Callable[[_Command], _Command]:
    """Gives a command ``--config`` and ``options``, each None where it is not given."""
    wanted = tuple(options)

    def add(function: _Command) -> _Command:
        for option in reversed(wanted):
            function = _click(option)(function)
        path = click.Path(path_type=Path)
        return click.option("--config", type=path, metavar="FILE", help=_sentence(HELP))(function)

    return add


def _click(option: Option) -> Callable[[_Command], _Command]:
    text = _sentence(option.help)
    if option.kind is bool:
        both = f"{option.flag}/--no-{option.flag.removeprefix('--')}"
        return click.option(both, option.name, default=None, help=text)
    return click.option(option.flag, option.name, type=option.kind, metavar=option.metavar, help=text)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
