"""A report on its way to the reader: how much of it, and where to."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distprof.commands.streams import put
from distprof.console import say
from distprof.errors import DataError
from distprof.merge.text import TextOptions
from distprof.merge.text.format.colour import coloured


def text_options(chosen: Mapping[str, Any]) -> TextOptions:
    """From settings by their names, defaults for those that are not there."""
    depth = chosen.get("depth", -1)
    return TextOptions(None if depth < 0 else depth, chosen.get("top", 3), chosen.get("detailed", True))


def write_report(text: str, chosen: Mapping[str, Any]) -> None:
    """Print a report, or write it to the ``output_file`` that was chosen.  Raises DataError where it cannot."""
    output_file = chosen.get("output_file", "-")
    if output_file == "-":
        _show(text)
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


def _show(text: str) -> None:
    """Print, to a terminal in colour."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        text = coloured(text)
    put(text)
