"""The run folder: all names and paths in it, and the manifest of the run.

runs/NAME/run.json                            the manifest
          inject/                             is on the ranks' PYTHONPATH; each of several nodes has a part of it
          shards/rank00003.g0.msgpack         one for each rank and generation
                 rank00003.g0.4f1c09ab.msgpack  one that another node has sent
          nodes/                              where the ranks and the daemon of each node meet
          traces/window1/rank3.json.gz        of torch.profiler, where they were asked for
          report/                             written by merge
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from distprof.errors import DataError, UsageError, said
from distprof.plain import dataclass
from distprof.safe_files import read_regular
from distprof.safe_folders import FILE_MODE, FOLDER_MODE, NotOwn, make_own, own_folder

MANIFEST = "run.json"
INJECT = "inject"
SHARDS = "shards"
NODES = "nodes"
TRACES = "traces"  # of torch.profiler
#: In a trace: the range of an iteration, as torch.profiler names it, followed by our number; our metadata; ranges at
#: whose begin our clock was read.
TRACE_ITERATION, TRACE_ABOUT, CLOCK_RANGE = "ProfilerStep#", "distprof", "distprof clock "
REPORT = "report"
PLOTS = "plots"
SUMMARY = "summary.json"  # in the folder of the report
PAGE = "report.html"  # in the folder of the report
SHARD_PATTERN = "rank*.g*.msgpack"
_SHARD_NAME = "rank{rank:05d}.g{generation}.msgpack"
_RECEIVED_NAME = "rank{rank:05d}.g{generation}.{sender}.msgpack"
_OWN_SHARD = re.compile(r"rank(\d{5,7})\.g(\d{1,5})\.msgpack", re.ASCII)
_MAX_NAME = 100
_MAX_GENERATIONS = 10_000
_MAX_MANIFEST_BYTES = 1 << 24  # no command line is as long


@dataclass(frozen=True)
class Manifest:
    """What the launcher knew at the start of the run.  ``world_size`` is 0 if it was unknown.

    ``shown`` has the options of the report from the job's configuration: :data:`distprof.config.options.SHOWN`.
    """

    run_id: str
    name: str
    command: tuple[str, ...]
    world_size: int
    started_wall_ns: int
    shown: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """One run's folder."""

    path: Path
    launch: str = ""  # the launcher whose part of ``inject`` this is, if several launchers share the folder

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST

    @property
    def inject(self) -> Path:
        return self.path / INJECT / self.launch

    @property
    def shards(self) -> Path:
        return self.path / SHARDS

    @property
    def report(self) -> Path:
        return self.path / REPORT

    @property
    def plots(self) -> Path:
        return self.path / REPORT / PLOTS

    def shard_files(self) -> list[Path]:
        """Returns the shards in rank order: from ``shards/``, or from the folder itself if they were copied into it."""
        return sorted(self.shards.glob(SHARD_PATTERN)) or sorted(self.path.glob(SHARD_PATTERN))

    def shard_path(self, rank: int, generation: int) -> Path:
        return self.shards / _SHARD_NAME.format(rank=rank, generation=generation)

    def shards_of(self, rank: int) -> list[Path]:
        """Returns the shards of all generations of one rank."""
        return sorted(self.shards.glob(_SHARD_NAME.format(rank=rank, generation="*")))

    def received_path(self, rank: int, generation: int, sender: int) -> Path:
        """Returns where a shard of another node is kept; ``sender`` is a number made of that node's launch."""
        return self.shards / _RECEIVED_NAME.format(rank=rank, generation=generation, sender=f"{sender:08x}")

    def own_shards(self) -> dict[tuple[int, int], Path]:
        """Returns (rank, generation) -> shard of those that no other node has sent."""
        matched = ((_OWN_SHARD.fullmatch(path.name), path) for path in sorted(self.shards.glob(SHARD_PATTERN)))
        return {(int(found[1]), int(found[2])): path for found, path in matched if found is not None}

    def trace_path(self, window: int, rank: int) -> Path:
        """Returns where a rank's trace of torch.profiler is; those of a window are in one folder."""
        return self.path / TRACES / f"window{window}" / f"rank{rank}.json.gz"

    def traces_of(self, rank: int) -> list[Path]:
        """Returns the traces of torch.profiler of one rank, in the order of their windows."""
        found = self.path.glob(f"{TRACES}/window*/{self.trace_path(0, rank).name}")
        return sorted(found, key=lambda path: (len(path.parent.name), path.parent.name))

    def read_manifest(self) -> Manifest | None:
        """Returns the manifest, None without one (copied shards).  Raises DataError for an invalid one."""
        try:
            return _manifest(json.loads(read_regular(self.manifest, _MAX_MANIFEST_BYTES)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            why = f"{type(error).__name__}: {said(error)}"
            raise DataError(
                f"{self.manifest} is no manifest of a run ({why}): remove it to merge the shards alone"
            ) from None

    def write_manifest(self, manifest: Manifest) -> None:
        """Writes ``manifest`` into the folder; several nodes may do so."""
        write_own(self.path, MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")


def _manifest(values: Any) -> Manifest:
    """Checks the values, which may come from elsewhere; ignores keys of another version."""
    command = tuple(values["command"])
    texts, numbers = (values["run_id"], values["name"], *command), (values["world_size"], values["started_wall_ns"])
    if not all(type(text) is str for text in texts) or not all(type(number) is int for number in numbers):
        raise TypeError("a value is of the wrong type")
    shown = values.get("shown", {})
    if not isinstance(shown, dict):
        raise TypeError("a value is of the wrong type")
    return Manifest(values["run_id"], values["name"], command, *numbers, shown)


def write_whole(path: Path, text: str) -> None:
    """Writes a file completely or not at all: others may read or write the same file at this moment."""
    scratch = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def write_own(folder: Path, name: str, text: str) -> None:
    """As :func:`write_whole`, into a folder that must belong to this user.  Raises OSError."""
    scratch = f"{name}.{uuid.uuid4().hex}"
    with own_folder(folder) as fd:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(scratch, flags, FILE_MODE, dir_fd=fd), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(scratch, name, src_dir_fd=fd, dst_dir_fd=fd)


def safe_name(text: str) -> str:
    """Returns ``text`` as one file name: letters, digits, ``.``, ``_`` and ``-``, never hidden, never empty."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:_MAX_NAME] or "run"


def job_name(rendezvous_id: str | None, environment: Mapping[str, str]) -> str | None:
    """Returns the name that all processes of the job share: the rendezvous id, else the SLURM job, else None."""
    shared = rendezvous_id or environment.get("SLURM_JOB_ID")
    return safe_name(f"job-{shared}") if shared else None


def create(out: Path, name: str, *, shared: bool, launch: str = "") -> RunFolder:
    """Makes the folder ``out/name`` (``name-2``, … if that exists and is not ``shared`` by the processes of one job).

    ``launch`` is the id of the launcher, if several launchers make the folder.

    The folder belongs to this user: others may read it, and cannot write into it.  Raises UsageError if it cannot be
    made, or belongs to another user.
    """
    try:
        for folder in reversed(
            (out, *out.parents)
        ):  # each with the mode: parents=True takes their modes from the umask
            with contextlib.suppress(FileExistsError):
                folder.mkdir(FOLDER_MODE)
        for attempt in range(1, _MAX_GENERATIONS):
            run = RunFolder(out / (name if attempt == 1 else f"{name}-{attempt}"), launch)
            try:
                make_own(run.path, SHARDS, INJECT, shared=shared)
            except FileExistsError:
                continue
            if launch:
                make_own(run.inject, shared=False)
            return run
    except NotOwn as error:
        why = f"{error.filename} is not this user's own folder, {error.strerror}"
        raise UsageError(f"{why} (choose another with --out or --name)") from None
    except OSError as error:
        raise UsageError(f"cannot make a run folder in {out}: {error.strerror} (choose another with --out)") from None
    raise UsageError(f"{out} already holds {_MAX_GENERATIONS} runs named {name}: choose another --name")
