"""Reports for the tests of what is drawn from them: analysed from made-up runs, and read back from JSON."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from functools import lru_cache
from typing import Any

from support.synthetic import Job, in_memory

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report


@lru_cache(maxsize=32)
def report_of(**job: Any) -> Report:
    """The report of the :class:`Job` made of the arguments."""
    return analyse(run_of_shards(in_memory(Job(**job))))


def report_from_json(text: str) -> Report:
    """What ``summary.json`` holds, every value of the type that the report declares; fails where one is of another."""
    report: Report = _built(Report, json.loads(text))
    return report


def _built(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _built(next(a for a in arguments if a is not type(None)), value)
    if origin is tuple:
        return tuple(_built(arguments[0], item) for item in value)
    if origin is dict:
        return {arguments[0](key): _built(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        assert list(value) == [field.name for field in dataclasses.fields(hint)] or hint is Report
        return typing.cast(Any, hint)(**{name: _built(hints[name], item) for name, item in value.items()})
    assert type(value) is hint, f"{value!r} is no {hint.__name__}"
    return value
