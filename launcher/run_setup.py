"""Prepares a job: its options, its run folder, and the two environment variables of its ranks."""

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
from distprof.config.option_sources import unknown_variables, with_defaults
from distprof.config.options import DEFAULTS, ENABLED, OUT, RUN, SHOWN
from distprof.config.settings import Settings, from_layer, write_settings
from distprof.console import say
from distprof.errors import UsageError
from distprof.heartbeat.marker import DAEMON_BY_RANKS
from distprof.launcher.daemon.metrics.availability import check_metrics
from distprof.launcher.remote.url import file_system, is_url, local_folder
from distprof.run_folder import Manifest, RunFolder
from distprof.safe_folders import is_out_of_reach

_INJECTED = Path(distprof.__file__).parent / "inject" / "sitecustomize.py"


@dataclass(frozen=True)
class RunOptions:
    """The values of distprof's own options of ``run`` and ``exec``."""

    out: Path = Path(DEFAULTS["out"])
    url: str = ""  # where the run folder is copied to, if anywhere
    name: str | None = None
    settings: Settings = field(default_factory=Settings)
    merge: bool = DEFAULTS["merge"]
    daemon: bool = DEFAULTS["daemon"]
    stall: float = DEFAULTS["stall"]
    quiet: bool = DEFAULTS["quiet"]
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
    out = values["out"]
    if is_url(out):
        file_system(out)
    settings = from_layer(layer)
    if settings.metrics_textfile:
        settings = replace(settings, metrics_textfile=str(Path(settings.metrics_textfile).absolute()))
    check_metrics(settings, daemon=values["daemon"])
    return RunOptions(
        out=local_folder(out, OUT.default),
        url=out if is_url(out) else "",
        name=values["name"],
        settings=settings,
        merge=values["merge"],
        daemon=values["daemon"],
        stall=values["stall"],
        quiet=values["quiet"],
        shown={option.name: layer[option.name].value for option in SHOWN if option.name in layer},
        config=file,
        off="" if values["enabled"] else layer["enabled"].where,
        remarks=(*config.remarks, *unknown_variables(environment).values()),
    )


@dataclass(frozen=True)
class Job:
    """A job before it starts."""

    command: tuple[str, ...]
    title: str  # the name of its script
    shared_name: str | None = None  # the run's name, if several processes must agree on it without communication
    world_size: int = 0  # 0: unknown to the launcher
    host: str = ""  # this node, if there are several: the launcher reports on its own ranks only
    host_ranks: int = 0  # the number of ranks on this node; 0: unknown
    on_this_node: bool = False  # whether the launcher starts all ranks of its node itself, and none elsewhere
    speaks: bool = True  # whether this launcher writes the messages, if each rank has one
    step: str = ""  # of Slurm, if each of its tasks is a launcher


def prepare(options: RunOptions, job: Job) -> RunFolder | None:
    """Makes the run folder with all files that the ranks need.

    Uses a temporary folder if ``options.out`` cannot be used, and returns None if that fails too: the job comes first.
    """
    try:
        return _make_run_folder(options.out, options, job)
    except (OSError, UsageError) as error:
        problem = str(error)
    try:
        run = _make_run_folder(Path(tempfile.mkdtemp(prefix="distprof-")), options, job)
    except (OSError, UsageError):
        say(f"{problem}; nor is there a temporary folder: the job runs without a recording")
        return None
    say(f"{problem}; recording in {run.path} instead")
    return run


def environment(run: RunFolder, inherited: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that ranks need in addition to ``inherited``."""
    behind = inherited.get("PYTHONPATH")
    return {
        "PYTHONPATH": os.pathsep.join([*_injection_path(run), *([behind] if behind else [])]),
        "DISTPROF_RUN": str(run.path.absolute()),
    }


def _make_run_folder(out: Path, options: RunOptions, job: Job) -> RunFolder:
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
        step=job.step,
        launched_ns=now,
        daemon=options.daemon,
        stall=options.stall,
        quiet=options.quiet,
    )
    write_settings(settings, run.inject)
    if options.daemon and not job.on_this_node:
        run_folder.write_own(run.inject, DAEMON_BY_RANKS, "")
    run.write_manifest(Manifest(run_id, run.path.name, job.command, job.world_size, now, dict(options.shown)))
    return run


def _put_injected(run: RunFolder) -> None:
    if is_out_of_reach(run.inject):
        run_folder.write_own(run.inject, _INJECTED.name, _INJECTED.read_text(encoding="utf-8"))


def _injection_path(run: RunFolder) -> list[str]:
    """Returns the entries of PYTHONPATH from which Python runs distprof's ``sitecustomize``.

    It is in the run's folder, which every node sees.  If other users could replace that folder, it is the one in
    distprof's installation, followed by an entry that contains the run's path and need not exist.
    """
    inject = run.inject.absolute()
    if is_out_of_reach(inject):
        return [str(inject)]
    return [str(_INJECTED.parent), str(_INJECTED.parent / "of") + str(inject)]
