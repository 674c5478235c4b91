"""What a device could do at most: the peak behind MFU, and where it is from.

A figure that the user gives goes first, then the makers' (``peaks.json``, dense, each with its source), then what
``distprof peak`` has measured on such a device.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from distprof.errors import UsageError

GIVEN = "--peak-tflops"
MEASURED = "measured by 'distprof peak'"
TABLE = Path(__file__).with_name("peaks.json")


class Engine(NamedTuple):
    """What has a peak: a device by its name, as many threads of it (0: all of it), in one arithmetic."""

    device: str
    threads: int
    arithmetic: str


class Peak(NamedTuple):
    tflops: float  # dense, of one device
    source: str


def possible(tflops: float) -> bool:
    """Whether a device could do so much: an MFU that divides by it is a number, and no record of one is infinite."""
    return 1e-6 <= tflops <= 1e9


@dataclass(frozen=True)
class KnownDevice:
    """One entry of the table: the peaks of the devices whose whole name matches one of ``names``."""

    device: str
    maker: str
    names: tuple[str, ...]
    tflops: dict[str, float]  # by arithmetic
    source: str  # title of the document
    url: str
    note: str

    def is_called(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.names)


@dataclass(frozen=True)
class Peaks:
    """Where peaks are looked up: ``given`` holds for every device, ``measured`` for the engines in it.

    Raises UsageError for a peak that is none.
    """

    given: float | None = None
    measured: Mapping[Engine, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.given is not None and not possible(self.given):
            raise UsageError(f"a peak of {self.given} TFLOPS is none: give a number above 0")

    def find(self, engine: Engine) -> Peak | None:
        if self.given is not None:
            return Peak(self.given, GIVEN)
        known = known_device(engine.device)
        if known and engine.arithmetic in known.tflops:
            return Peak(known.tflops[engine.arithmetic], known.source)
        if engine in self.measured:
            return Peak(self.measured[engine], MEASURED)
        return None


#: The same wherever a run is merged.
DATASHEET_PEAKS = Peaks()


@cache
def known_device(name: str) -> KnownDevice | None:
    """Returns the entry for what a device calls itself.  A MIG instance is a part, and has a name of its own."""
    return next((known for known in table() if known.is_called(name)), None)


@cache
def table() -> tuple[KnownDevice, ...]:
    """Returns all entries of ``peaks.json``."""
    devices: list[dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))["devices"]
    return tuple(KnownDevice(**{**device, "names": tuple(device["names"])}) for device in devices)
