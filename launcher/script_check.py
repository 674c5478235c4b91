"""Finds out whether torchrun can start a script, before a run folder is made for its job."""

from __future__ import annotations

import argparse
import os
import shutil
import warnings
from importlib.machinery import PathFinder
from importlib.util import MAGIC_NUMBER, find_spec
from pathlib import Path
from zipfile import is_zipfile

from distprof.errors import UsageError

_EXAMPLE = "as in: distprof run --nproc 8 train.py"
_STARTERS = ("python", "python3", "torchrun")
_MOST_READ = 10_000_000  # bytes


def check_script(args: argparse.Namespace) -> None:
    """Raises UsageError where the script, module or program of torchrun's ``args`` cannot start."""
    name = args.training_script
    if not name:
        raise UsageError(f"no script is given, {_EXAMPLE}")
    if args.no_python:
        _check_program(name)
    elif args.module:
        _check_module(name)
    else:
        _check_path(name)


def _check_program(name: str) -> None:
    if shutil.which(name) is None:
        raise UsageError(f"cannot start {name}: it does not exist, or is not executable")


def _check_module(name: str) -> None:
    """Looks for the outermost package only, as more would import it."""
    package = name.partition(".")[0]
    try:
        found = bool(package) and bool(PathFinder.find_spec(package, [""]) or find_spec(package))
    except (ImportError, ValueError):  # Python itself will say what is wrong
        return
    if not found:
        raise UsageError(f"there is no module {name} in {Path.cwd()}, nor is it installed")


def _check_path(name: str) -> None:
    script = Path(name)
    if not os.access(name, os.F_OK):
        hint = f": distprof starts Python itself, {_EXAMPLE}" if name in _STARTERS else ""
        raise UsageError(f"the script {name} does not exist in {Path.cwd()}{hint}")
    if not os.access(name, os.R_OK):
        raise UsageError(f"the script {name} cannot be read: its permissions do not allow it")
    if script.is_dir():
        if not any(script.glob("__main__*")):
            raise UsageError(f"{name} is a folder without __main__.py: give a script, {_EXAMPLE}")
    elif script.is_file() and script.suffix != ".py":  # a pipe can be read once only
        _check_content(script)


def _check_content(script: Path) -> None:
    """Refuses what Python cannot run, such as a file of text; errors in a file called .py are Python's to explain."""
    if "PYTHON_EXEC" in os.environ or script.stat().st_size > _MOST_READ or is_zipfile(script):
        return
    content = script.read_bytes()
    if content.startswith(MAGIC_NUMBER):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(content, str(script), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        why = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) and error.lineno else str(error)
        raise UsageError(f"{script} is no Python script ({why}): --no-python starts other programs") from None
