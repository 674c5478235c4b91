"""What to record and when, decided once by the launcher and handed to every rank.

The launcher writes the decision beside the injected ``sitecustomize``; ranks read it there, so that a launcher which
does not pass the environment on (DeepSpeed's multi-node one passes ``PYTHON*`` alone) starts recorders that agree, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from distprof.config.options import WINDOW, Layer, from_call, from_environment, unknown
from distprof.errors import UsageError
from distprof.run_folder import write_own

SETTINGS_FILE = "distprof-settings.json"


@dataclass(frozen=True)
class Settings:
    """``warmup`` iterations unwatched, then one counted (unless ``count`` is off), then ``timed`` timed.

    With ``count_eager`` the counted one runs compiled code in eager form.
    """

    warmup: int = 5
    timed: int = 10
    count: bool = True
    count_eager: bool = False
    run_dir: str = ""
    run_id: str = ""
    launch: str = ""  # one launcher's, where each node of a job has one
    launched_ns: int = 0

    def __post_init__(self) -> None:
        if not self.timed and not self.count:
            raise UsageError("nothing is left to record: timed is 0 and counting is off")
        if self.count_eager and not self.count:
            raise UsageError("count_eager says how to count, and counting is off: give one of the two")

    @property
    def counted(self) -> int:
        return int(self.count)


def from_layer(layer: Layer) -> Settings:
    """The settings among what was decided, defaults for the others.  Raises UsageError if nothing is left to record."""
    chosen = {option.name: layer[option.name].value for option in WINDOW if option.name in layer}
    return replace(Settings(), **chosen)  # type: ignore[arg-type]


def resolve(environment: Mapping[str, str] = os.environ, **given: object) -> Settings:
    """What is ``given`` and not None, else DISTPROF_WARMUP and the like, else defaults.

    Raises UsageError for a value that makes no sense, and TypeError for a name that is no setting.
    """
    known = {option.name for option in WINDOW}
    for name in given:
        if name not in known:
            raise TypeError(str(unknown(name, known, "the call")))
    return from_layer({**from_environment(WINDOW, environment), **from_call(WINDOW, given)})


def write_settings(settings: Settings, folder: Path) -> None:
    """Leave the decision in ``folder`` for the ranks."""
    write_own(folder, SETTINGS_FILE, json.dumps(asdict(settings), indent=2) + "\n")


def read_settings(folder: Path) -> Settings:
    """What :func:`write_settings` left.  Keys of another version are passed over."""
    values = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    known = {field.name for field in fields(Settings)}
    return Settings(**{name: value for name, value in values.items() if name in known})
