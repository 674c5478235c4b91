"""The settings of a run: what to record and when.  The launcher decides them once, and every rank reads them.

The launcher writes them into the folder of the injected ``sitecustomize``, and ranks read them there.  So all recorders
agree, also where a launcher does not pass the environment on: DeepSpeed's multi-node launcher passes ``PYTHON*`` only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from distprof.config.option import Layer
from distprof.config.option_sources import from_call, from_environment, unknown
from distprof.config.options import DEFAULTS, METRICS, WINDOW
from distprof.errors import UsageError
from distprof.run_folder import write_own

SETTINGS_FILE = "distprof-settings.json"


@dataclass(frozen=True)
class Settings:
    """Of ``warmup`` iterations only the phases are timed, then one is counted (unless ``count`` is off), then ``timed``
    are timed.

    With ``count_eager`` the counted iteration runs compiled code in eager form.  ``collectives``: those of the timed
    iterations are recorded; with ``collective_timing`` NCCL's timing of them is switched on.  With
    ``every`` windows come back after so many iterations.  ``metrics`` is the port on which the daemon serves them, None
    for none.
    """

    warmup: int = DEFAULTS["warmup"]
    timed: int = DEFAULTS["timed"]
    count: bool = DEFAULTS["count"]
    count_eager: bool = DEFAULTS["count_eager"]
    run_dir: str = ""
    run_id: str = ""
    launch: str = ""  # the id of the launcher: each node of a job may have one
    launched_ns: int = 0
    step: str = ""  # the id of a Slurm step whose tasks are launchers: those of a node share its page
    collectives: bool = DEFAULTS["collectives"]
    collective_timing: bool = DEFAULTS["collective_timing"]
    daemon: bool = False  # the ranks have a heartbeat, which the daemon of their node reads
    stall: float = DEFAULTS["stall"]  # seconds, the least after which an iteration counts as stuck
    quiet: bool = DEFAULTS["quiet"]  # the job's log has no line about a rank that is the slowest again and again
    every: int = 0
    metrics: int | None = None
    metrics_host: str = DEFAULTS["metrics_host"]
    metrics_textfile: str = ""

    def __post_init__(self) -> None:
        if not self.timed and not self.count:
            raise UsageError("nothing is left to record: timed is 0 and counting is off")
        needed = self.counted + self.timed + 1  # one iteration may settle
        if 0 < self.every <= needed:
            raise UsageError(f"windows of up to {needed} iterations cannot come back every {self.every}: give more")
        if self.count_eager and not self.count:
            raise UsageError("count_eager says how to count, and counting is off: give one of the two")
        if self.collective_timing and not self.collectives:
            raise UsageError("collective_timing says how to record collectives, which is off: give one of the two")

    @property
    def page_id(self) -> str:
        """What the ranks of one page have in common."""
        return self.step or self.launch

    @property
    def counted(self) -> int:
        return int(self.count)


def from_layer(layer: Layer) -> Settings:
    """Returns the settings in ``layer``, else the defaults.  Raises UsageError if nothing is left to record."""
    chosen = {option.name: layer[option.name].value for option in (*WINDOW, *METRICS) if option.name in layer}
    return replace(Settings(), **chosen)  # type: ignore[arg-type]


def resolve(environment: Mapping[str, str] = os.environ, **given: object) -> Settings:
    """Returns settings from the arguments that are ``given`` and not None, else from the environment, else defaults.

    Raises UsageError for an invalid value, and TypeError for a name that is no setting.
    """
    known = {option.name for option in WINDOW}
    for name in given:
        if name not in known:
            raise TypeError(str(unknown(name, known, "the call")))
    return from_layer({**from_environment(WINDOW, environment), **from_call(WINDOW, given)})


def write_settings(settings: Settings, folder: Path) -> None:
    """Writes the settings into ``folder`` for the ranks."""
    write_own(folder, SETTINGS_FILE, json.dumps(asdict(settings), indent=2) + "\n")


def read_settings(folder: Path) -> Settings:
    """Reads what :func:`write_settings` wrote.  Ignores keys of another version."""
    values = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    known = {field.name for field in fields(Settings)}
    return Settings(**{name: value for name, value in values.items() if name in known})
