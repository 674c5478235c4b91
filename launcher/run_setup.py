"""What goes before and around a job: its run folder, and the two environment variables that reach its ranks."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import distprof
from distprof import run_folder
from distprof.clock import SystemClock
from distprof.config.files import chosen_file, decide_options, read_config
from distprof.config.options import DEFAULTS, ENABLED, RUN, SHOWN, unknown_variables, with_defaults
from distprof.config.settings import Settings, from_layer, write_settings
from distprof.console import say
from distprof.errors import UsageError
from distprof.run_folder import Manifest, RunFolder
from distprof.safe_folders import is_out_of_reach

_INJECTED = Path(distprof.__file__).parent / "inject" / "sitecustomize.py"


@dataclass(frozen=True)
class RunOptions:
    """The values of distprof's own options of ``run`` and ``exec``."""

    out: Path = Path(DEFAULTS["out"])
    name: str | None = None
    settings: Settings = field(default_factory=Settings)
    merge: bool = DEFAULTS["merge"]
    shown: Mapping[str, object] = field(default_factory=dict)  # the options that later merges use, if not given there
    config: Path | None = None  # the configuration file that the user named
    off: str = ""  # the place that switches recording off
    remarks: tuple[str, ...] = ()  # for the user, on the file and the environment


def choose_options(given: Mapping[str, object], environment: Mapping[str, str] = os.environ) -> RunOptions:
    """Returns each option from the command line (``given``; None: not given), else the environment, else the file.

    Raises UsageError for an invalid value; no folder has been made then.
    """
    path = given.get("config")
    file = chosen_file(path if isinstance(path, Path) else None, environment)
    config = read_config(file)
    layer = decide_options((ENABLED, *RUN, *SHOWN), given, environment, config)
    values = with_defaults((ENABLED, *RUN), layer)
    return RunOptions(
        out=Path(values["out"]),
        name=values["name"],
        settings=from_layer(layer),
        merge=values["merge"],
        shown={option.name: layer[option.name].value for option in SHOWN if option.name in layer},
        config=file,
        off="" if values["enabled"] else layer["enabled"].where,
        remarks=(*config.remarks, *unknown_variables(environment).values()),
    )


@dataclass(frozen=True)
class Job:
    """What is known of a job before it starts."""

    command: tuple[str, ...]
    title: str  # what its script is called
    shared_name: str | None = None  # the run's name, where several processes that cannot talk must agree on it
    world_size: int = 0  # 0: only the ranks will know
    host: str = ""  # this one, where it is one of several: the launcher answers for its own ranks only
    host_ranks: int = 0  # how many these are; 0: not known
    speaks: bool = True  # where each rank has a launcher, one of them says what came of the run


def prepare(options: RunOptions, job: Job) -> RunFolder | None:
    """Make the run folder with all that the ranks need in it.

    The job comes first: where ``options.out`` will not do, a temporary folder does; where that fails too, None.
    """
    try:
        return _fill(options.out, options, job)
    except (OSError, UsageError) as error:
        problem = str(error)
    try:
        run = _fill(Path(tempfile.mkdtemp(prefix="distprof-")), options, job)
    except (OSError, UsageError):
        say(f"{problem}; nor is there a temporary folder: the job runs without a recording")
        return None
    say(f"{problem}; recording in {run.path} instead")
    return run


def environment(run: RunFolder, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that ranks need on top of ``inherited``."""
    behind = inherited.get("PYTHONPATH")
    return {
        "PYTHONPATH": os.pathsep.join([*_on_the_path(run), *([behind] if behind else [])]),
        "DISTPROF_RUN": str(run.path.absolute()),
    }


def _fill(out: Path, options: RunOptions, job: Job) -> RunFolder:
    if os.pathsep in str(out.absolute()):
        raise UsageError(f"{out.absolute()} holds a {os.pathsep!r}, which PYTHONPATH cannot carry")
    name = run_folder.safe_name(options.name or job.shared_name or f"{job.title}-{time.strftime('%Y%m%d-%H%M%S')}")
    shared = job.shared_name is not None
    run = run_folder.create(out, name, shared=shared, launch=uuid.uuid4().hex[:12] if shared else "")
    run_id = name if shared else f"{run.path.name}-{uuid.uuid4().hex[:12]}"
    _put_injected(run)
    now = SystemClock.wall_ns()
    settings = replace(
        options.settings,
        run_dir=str(run.path.absolute()),
        run_id=run_id,
        launch=run.launch or run_id,
        launched_ns=now,
    )
    write_settings(settings, run.inject)
    run.write_manifest(Manifest(run_id, run.path.name, job.command, job.world_size, now, dict(options.shown)))
    return run


def _put_injected(run: RunFolder) -> None:
    if is_out_of_reach(run.inject):
        run_folder.write_own(run.inject, _INJECTED.name, _INJECTED.read_text(encoding="utf-8"))


def _on_the_path(run: RunFolder) -> list[str]:
    """From where Python runs our ``sitecustomize``: the run's folder, which every node sees.

    Where others could put a folder of theirs in its place it is the one that lies where distprof is installed, and what
    follows names the run: no folder has to be there.
    """
    inject = run.inject.absolute()
    if is_out_of_reach(inject):
        return [str(inject)]
    return [str(_INJECTED.parent), str(_INJECTED.parent / "of") + str(inject)]
