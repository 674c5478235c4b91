"""What was found out about a hang, as files of the run: ``hangs/NUMBER.json``, and a text with all stacks."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from distprof.plain import dataclass
from distprof.run_folder import RunFolder, write_own
from distprof.safe_files import read_regular
from distprof.safe_folders import make_own

FOLDER = "hangs"
_NAME = re.compile(r"\d{3}\.json")
_MOST_BYTES = 1 << 22
_MOST_FILES = 1000
_MOST_TEXT = 4000
_MOST_RANKS = 1 << 20

OUTSIDE, MISMATCH, DEADLOCK = "stuck outside a collective", "mismatched op or size", "deadlock"
MISSING, DEAD, SLOW, UNKNOWN = "missing rank", "rank dead", "slow but moving", "unknown"
KINDS = (OUTSIDE, MISMATCH, DEADLOCK, MISSING, DEAD, SLOW, UNKNOWN)


@dataclass(frozen=True)
class Hang:
    """A job that stood still."""

    kind: str  # one of KINDS
    ranks: tuple[int, ...]  # the root: they keep the others waiting; empty where that is not known
    waiting: tuple[int, ...]  # those that wait, for them or for each other
    iteration: int  # the one that stood still, of the first of these ranks
    age_s: float  # how long it had run when the hang was found
    wall_ns: int  # when that was
    cause: str  # a sentence
    where: str  # all ranks with their places, folded
    evidence: tuple[str, ...] = ()  # further sentences
    moved_wall_ns: int = 0  # when things moved again; 0: they did not, as far as is known


def to_message(hang: Hang) -> dict[str, Any]:
    return asdict(hang)


def from_message(values: Mapping[str, Any]) -> Hang:
    """Raises ValueError if it is no hang."""
    try:
        if values["kind"] not in KINDS:
            raise TypeError
        return Hang(
            values["kind"],
            _ranks(values["ranks"]),
            _ranks(values["waiting"]),
            int(_number(values["iteration"])),
            float(_number(values["age_s"])),
            int(_number(values["wall_ns"])),
            _text(values["cause"]),
            _text(values["where"]),
            tuple(_text(one) for one in values["evidence"][:100]),
            int(_number(values["moved_wall_ns"])),
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no hang: {type(error).__name__}") from None


def write_hang(run: RunFolder, number: int, hang: Hang, text: str = "") -> None:
    """Writes a hang into the run's folder, and ``text``, if there is any, beside it.  Raises OSError."""
    make_own(run.path, FOLDER, shared=True)
    name = f"{number:03}"
    if text:
        write_own(run.path / FOLDER, f"{name}.txt", text)
    write_own(run.path / FOLDER, f"{name}.json", json.dumps(to_message(hang), indent=2) + "\n")


def next_number(run: RunFolder) -> int:
    """Returns the number of the next hang of this run; -1 if it has too many."""
    names = [entry.name for entry in _entries(run)]
    return max((int(name[:3]) for name in names), default=-1) + 1 if len(names) < _MOST_FILES - 1 else -1


def read_hangs(run: RunFolder) -> list[Hang]:
    """Returns the hangs of a run in order; what is none is left out."""
    found = []
    for entry in _entries(run):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found.append(from_message(json.loads(read_regular(run.path / FOLDER / entry.name, _MOST_BYTES))))
    return found


def _entries(run: RunFolder) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(run.path / FOLDER) as entries:
            found = [entry for entry in entries if _NAME.fullmatch(entry.name)]
    except OSError:
        return
    yield from sorted(found, key=lambda entry: entry.name)


def _ranks(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or len(values) > _MOST_RANKS:
        raise TypeError
    return tuple(int(_number(rank)) for rank in values)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < 1 << 62:
        raise TypeError
    number: float = value
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value[:_MOST_TEXT]
