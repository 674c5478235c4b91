"""What to record and when: option > environment > default, decided once by the launcher and handed to every rank.

The launcher writes the decision beside the injected ``sitecustomize``; ranks read it there, so that a launcher which
does not pass the environment on (DeepSpeed's multi-node one passes ``PYTHON*`` alone) starts recorders that agree, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from distprof.errors import UsageError
from distprof.rundir import write_whole

SETTINGS_FILE = "distprof-settings.json"


@dataclass(frozen=True)
class Settings:
    """``warmup`` iterations unwatched, then one counted (unless ``count`` is off), then ``timed`` timed."""

    warmup: int = 5
    timed: int = 10
    count: bool = True
    run_dir: str = ""
    run_id: str = ""

    def __post_init__(self) -> None:
        for name in ("warmup", "timed"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}: give 0 or more iterations")
        if not self.timed and not self.count:
            raise UsageError("nothing is left to record: timed is 0 and counting is off")

    @property
    def counted(self) -> int:
        return int(self.count)


def resolve(environment: Mapping[str, str] = os.environ, **options: object) -> Settings:
    """Options that are not None, else DISTPROF_WARMUP, DISTPROF_TIMED and DISTPROF_COUNT (0 or 1), else defaults.

    Raises UsageError for a value that does not parse.
    """
    values: dict[str, object] = {}
    for name, parse in (("warmup", _number), ("timed", _number), ("count", _switch)):
        variable = f"DISTPROF_{name.upper()}"
        if variable in environment:
            values[name] = parse(variable, environment[variable])
    values.update({name: value for name, value in options.items() if value is not None})
    return replace(Settings(), **values)  # type: ignore[arg-type]


def _number(variable: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{variable}={text} is no number of iterations")
    return int(text)


def _switch(variable: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise UsageError(f"{variable}={text}: give 0 or 1")
    return text == "1"


def write_settings(settings: Settings, folder: Path) -> None:
    """Leave the decision in ``folder`` for the ranks."""
    write_whole(folder / SETTINGS_FILE, json.dumps(asdict(settings), indent=2) + "\n")


def read_settings(folder: Path) -> Settings:
    """What :func:`write_settings` left.  Keys of another version are passed over."""
    values = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    known = {field.name for field in fields(Settings)}
    return Settings(**{name: value for name, value in values.items() if name in known})
