"""Reads the ``flops_profiler`` section of a DeepSpeed config as options of distprof.

    enabled               enabled
    profile_step          warmup: the first recorded iteration, counted from 0 as in DeepSpeed
    module_depth          depth (-1: all modules)
    top_modules           top
    detailed              detailed
    output_file           output-file, and merge: a report is made when the job has ended
    recompute_fwd_factor  ignored: recomputed forwards are measured
    start_step, end_step  (of earlier releases) warmup and timed

A missing key gets distprof's default, not DeepSpeed's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from distprof.config.option import Option, Value, shown
from distprof.config.option_sources import unknown
from distprof.config.options import ALL
from distprof.errors import UsageError

SECTION = "flops_profiler"
_OPTION_OF_KEY = {
    "enabled": "enabled",
    "profile_step": "warmup",
    "module_depth": "depth",
    "top_modules": "top",
    "detailed": "detailed",
    "output_file": "output_file",
}
#: Keys of earlier releases of DeepSpeed.
_START, _END = Option("start_step", int, "", least=0), Option("end_step", int, "", least=0)
_FACTOR = Option("recompute_fwd_factor", float, "")


def read(text: str, path: Path) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Returns (options, remarks for the user) from a config's ``text``.  Raises UsageError with file and key."""
    whole = _parse(text, path)
    if not isinstance(whole, dict):
        raise UsageError(f"the configuration {path} is {type(whole).__name__}, not an object with sections")
    section = whole.get(SECTION)
    if section is None:
        return {}, (f"{path} has no section {SECTION!r}: it changes nothing here",)
    if not isinstance(section, dict):
        raise UsageError(f"{SECTION!r} in {path} is {shown(section)}: give an object")
    return _translate(section, path)


def _translate(section: Mapping[str, object], path: Path) -> tuple[dict[str, Value], tuple[str, ...]]:
    options = {option.name: option for option in ALL}
    layer: dict[str, Value] = {}
    remarks: tuple[str, ...] = ()
    for key, value in section.items():
        where = f"'{SECTION}.{key}' in {path}"
        if key in (_START.name, _END.name):
            continue
        if key not in _OPTION_OF_KEY and key != _FACTOR.name:
            raise unknown(key, [*_OPTION_OF_KEY, _FACTOR.name], f"{SECTION!r} in {path}")
        if value is None or (key == "output_file" and value == ""):  # DeepSpeed's way to set nothing
            continue
        if key == _FACTOR.name:
            if _FACTOR.checked(value, where).value:
                remarks = (f"{where} is not needed: what is recomputed is measured, and the report shows it apart",)
        else:
            option = options[_OPTION_OF_KEY[key]]
            layer[option.name] = option.checked(value, where)
    steps, remarks_on_steps = _step_options(section, path)
    layer, remarks = {**steps, **layer}, (*remarks, *remarks_on_steps)
    if "output_file" in layer:
        layer["merge"] = Value(True, layer["output_file"].where)
    return layer, remarks


def _step_options(section: Mapping[str, object], path: Path) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Returns the options from the steps of earlier releases; ``profile_step`` takes precedence over them."""
    given = {option.name: option for option in (_START, _END) if section.get(option.name) is not None}
    if not given:
        return {}, ()
    value = {name: option.checked(section[name], f"'{SECTION}.{name}' in {path}") for name, option in given.items()}
    first = section.get("profile_step")
    start = value.get(_START.name, Value(first if type(first) is int else 0, f"{SECTION!r} in {path}"))
    layer = {"warmup": start}
    if _END.name in value:
        steps = int(str(value[_END.name].value)) - int(str(start.value))
        if steps < 1:
            raise UsageError(f"{value[_END.name].where} is not above start_step: give an end_step that is")
        layer["timed"] = Value(steps, value[_END.name].where)
    names = " and ".join(given)
    remark = f"{SECTION!r} in {path}: {names} of an earlier DeepSpeed {'is' if len(given) == 1 else 'are'} taken"
    return layer, (f"{remark} as the iterations to record (profile_step today)",)


def _parse(text: str, path: Path) -> object:
    """Parses JSON, also with comments as DeepSpeed accepts them, if its parser (hjson) is installed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    try:
        return import_module("hjson").loads(text)
    except ImportError:
        hint = " (comments are read where hjson is installed, which DeepSpeed brings)"
    except Exception as error:
        problem, hint = str(error).partition("\n")[0], ""
    raise UsageError(f"the configuration {path} is neither a .toml nor JSON: {problem}{hint}")
