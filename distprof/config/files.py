"""Configuration files: ``distprof.toml``, ``[tool.distprof]`` of ``pyproject.toml``, a DeepSpeed config JSON.

An option that is set in several places has the value of the first of these: the command line, the environment, the
file, the default.  One file is read: the one that ``--config`` (or DISTPROF_CONFIG) names, else ``distprof.toml`` or
``pyproject.toml`` in the current folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path

from distprof.config import deepspeed
from distprof.config.option import Layer, Option, Value, shown
from distprof.config.option_sources import from_call, from_environment, unknown
from distprof.config.options import ALL
from distprof.errors import UsageError
from distprof.plain import dataclass

#: The files that are looked for in the current folder, in this order.
OWN_FILE = "distprof.toml"
SHARED_FILE = "pyproject.toml"
_MOST_CHARACTERS = 1 << 24
HELP = f"file with settings: a .toml, or a DeepSpeed config JSON (default: ./{OWN_FILE}, else ./{SHARED_FILE})"


@dataclass(frozen=True)
class Config:
    """The options that a file sets, and remarks for the user."""

    layer: Layer = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def decide_options(
    options: Iterable[Option], given: Mapping[str, object], environment: Mapping[str, str], config: Config
) -> Layer:
    """Returns those of ``options`` that anything sets, with their values.  Raises UsageError for an invalid value."""
    options = tuple(options)
    in_file = {option.name: config.layer[option.name] for option in options if option.name in config.layer}
    return {**in_file, **from_environment(options, environment), **from_call(options, given)}


def chosen_file(given: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Returns the file that the user named."""
    named = environment.get("DISTPROF_CONFIG")
    return given or (Path(named) if named else None)


def read_config(path: Path | None) -> Config:
    """Reads the options in ``path``, or in the file of the current folder if it is None.

    Raises UsageError, in one sentence with file and key, for a file that cannot be read, an unknown key, and a value of
    the wrong type.
    """
    if path is not None:
        return _read(path)
    found = next((Path(name) for name in (OWN_FILE, SHARED_FILE) if Path(name).is_file()), None)
    return _read(found) if found else Config()


def _read(path: Path) -> Config:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_CHARACTERS + 1)
    except OSError as error:
        raise UsageError(f"the configuration {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the configuration {path} is not UTF-8 text") from None
    if len(text) > _MOST_CHARACTERS:
        raise UsageError(f"the configuration {path} has more than {_MOST_CHARACTERS:,} characters: it is none")
    if path.suffix == ".toml":
        return Config(_parse_toml(text, path))
    return Config(*deepspeed.read(text, path))


def _parse_toml(text: str, path: Path) -> Layer:
    if sys.version_info >= (3, 11):  # imported here, because hardly a command of a small run takes as long
        import tomllib
    else:
        import tomli as tomllib

    try:
        values: object = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the configuration {path} is no TOML: {error}") from None
    place = str(path)
    if path.name == SHARED_FILE:
        place = f"[tool.distprof] of {path}"
        for name in ("tool", "distprof"):
            values = values.get(name, {}) if isinstance(values, dict) else {}
    if not isinstance(values, dict):
        raise UsageError(f"{place} is {shown(values)}: give a table")
    return _check_values(values, place)


def _check_values(values: Mapping[str, object], place: str) -> dict[str, Value]:
    """Checks keys and values; a key is spelled as an option (``output-file``) or as a Python name (``output_file``)."""
    known = {option.flag.removeprefix("--"): option for option in ALL}
    layer = {}
    for key, value in values.items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            raise unknown(key, known, place)
        layer[option.name] = option.checked(value, f"{key!r} in {place}")
    return layer
