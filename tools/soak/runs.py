"""Runs a script of tests/cases, with or without distprof, and compares two such runs.

Times always differ: a printed number with a unit of time is masked, and lines that begin with a logger's time stamp are
left out.  The output of several ranks is sorted, because its order differs.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from soak.scripts import Script
from soak.state import LAST_LINES

RUN = "x"
_MAX_SECONDS = 900
_TIME = re.compile(r"\b\d+(\.\d+)?(e[+-]?\d+)? ?(ns|us|µs|ms|s|sec|seconds|min)\b")
_STAMPED = re.compile(r"\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d")
_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
_DISTPROF = (sys.executable, "-m", "distprof")
_FOREIGN = ("DISTPROF_", "PET_", "TORCHELASTIC_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_")


@dataclass(frozen=True)
class Left:
    """The output of a run: its printed lines, its files and its exit code."""

    code: list[str]
    output: list[str]
    files: list[str]
    errors: str


def plain(script: Script, place: Path) -> Left:
    launched = (*_TORCHRUN, str(script.ranks)) if _needs_ranks(script) else (sys.executable,)
    return _run(script, place, launched)


def under_distprof(script: Script, place: Path, warmup: int, timed: int) -> Left:
    """Runs the script under distprof; its run is ``RUN``, in ``runs``."""
    options = ("--name", RUN, "--warmup", str(warmup), "--timed", str(timed))
    if _needs_ranks(script):
        return _run(script, place, (*_DISTPROF, "run", "--nproc", str(script.ranks), *options))
    return _run(script, place, (*_DISTPROF, "exec", *options, "--", sys.executable))


def _needs_ranks(script: Script) -> bool:
    """Returns whether its stack needs a launcher's variables, whatever the number of ranks."""
    return script.ranks > 1 or bool(script.stacks)


def _run(script: Script, place: Path, launched: tuple[str, ...]) -> Left:
    """Runs it in a new folder; libraries keep their caches in another folder next to it."""
    place.mkdir(parents=True)
    scratch = place.parent / "tmp"
    scratch.mkdir(exist_ok=True)
    copy = place.parent / script.path.name
    copy.write_text(script.path.read_text(encoding="utf-8") + LAST_LINES, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    job = subprocess.Popen(
        [*launched, str(copy), *script.arguments],
        cwd=place,
        env={**env, "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    )
    try:
        output, errors = job.communicate(timeout=_MAX_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
        return Left(["did not end"], [], [], "")
    return Left([f"exit code {job.returncode}"], _lines(output, script.ranks), _files(place), errors)


def _lines(output: str, ranks: int) -> list[str]:
    lines = [_TIME.sub("<time>", line) for line in output.splitlines() if not _STAMPED.match(line)]
    return sorted(lines) if ranks > 1 else lines


def _files(place: Path) -> list[str]:
    """Returns the content of each file that the script wrote; distprof's run is left out."""
    paths = [path.relative_to(place) for path in sorted(place.rglob("*")) if path.is_file()]
    own = [path for path in paths if path.parts[:2] != ("runs", RUN)]
    return [f"{path}: {line}" for path in own for line in _content((place / path).read_bytes())]


def _content(data: bytes) -> list[str]:
    """Returns the lines of a text file, or the digest of another."""
    try:
        return ["", *data.decode("utf-8").splitlines()]
    except UnicodeDecodeError:
        return [hashlib.sha256(data).hexdigest()]


def differences(one: Left, other: Left) -> set[str]:
    return {name for name in ("code", "output", "files") if getattr(one, name) != getattr(other, name)}


def explain(one: Left, other: Left, names: set[str]) -> str:
    """Returns the first lines that differ; if the exit codes differ, also the last lines of stderr."""
    lines = []
    for name in sorted(names):
        differing = difflib.unified_diff(
            getattr(one, name), getattr(other, name), "plain", "distprof", n=0, lineterm=""
        )
        lines += [f"  {line}" for line in list(differing)[:12]]
    if "code" in names:
        lines += [f"  stderr: {line}" for line in other.errors.splitlines()[-8:]]
    return "\n".join(lines)
