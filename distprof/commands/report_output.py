"""Writes the text of a report: how much of it is shown, and where it goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distprof.commands.streams import put
from distprof.config.options import STDOUT
from distprof.console import say
from distprof.errors import DataError
from distprof.merge.text import TextOptions
from distprof.merge.text.format.colour import coloured


def text_options(chosen: Mapping[str, Any]) -> TextOptions:
    """Returns the text options among ``chosen``: option name -> value."""
    depth = chosen["depth"]
    return TextOptions(None if depth < 0 else depth, chosen["top"], chosen["detailed"])


def write_report(text: str, chosen: Mapping[str, Any]) -> None:
    """Prints a report, or writes it to the chosen ``output_file``.  Raises DataError if the file cannot be written."""
    output_file = chosen.get("output_file", STDOUT)
    if output_file == STDOUT:
        _print(text)
    else:
        _write(text, Path(output_file))


def _write(text: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"the report cannot be written to {path} ({error.strerror}): choose another --output-file, or - for stdout"
        ) from None
    say(f"text of the report in {path}")


def _print(text: str) -> None:
    """Prints the text, in colour on a terminal."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        text = coloured(text)
    put(text)
