"""Arms a recorder in a new Python process once it imports torch; costs nothing if it never does.

Every Python process of a job runs this first, so it imports almost nothing: a script could not import its own module
under a name that is already imported.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from distprof.console import say
from distprof.errors import said
from distprof.heartbeat.marker import DAEMON_BY_RANKS
from distprof.inject.import_hook import TorchImportHook, separate_imports
from distprof.rank.rank_variables import RANK_AND_SIZE

if TYPE_CHECKING:
    from distprof.config.settings import Settings
    from distprof.recorder.recorder import Recorder

#: The recorder of this process, once there is one.
recorder: Recorder | None = None


def from_injection(folder: str) -> None:
    """Arms a recorder with the settings in ``folder``, now or when torch is imported."""
    if is_launched_rank():
        atexit.register(_at_exit_of_a_rank, folder, os.getpid())
    path = sys.path[:]
    if os.path.exists(os.path.join(folder, DAEMON_BY_RANKS)) and _is_rank_of_a_launcher():  # noqa: PTH110, PTH118
        _start_daemon(folder, path)
    if "torch" in sys.modules:
        _arm_from_folder(folder, path)
    else:
        sys.meta_path.insert(0, TorchImportHook(lambda: _arm_from_folder(folder, path)))


def arm(settings: Settings, *, asked: bool = False) -> Recorder | None:
    """Returns the recorder of this process, which waits for a model to run; None, with a line on stderr, if it fails.

    ``asked``: the script itself has asked for the recording of this process.
    """
    global recorder  # noqa: PLW0603  one process has one recorder
    with _failures_reported():
        from distprof.recorder.recorder import Recorder

        armed = Recorder(settings, asked=asked)
        armed.arm()
        recorder = armed
        return armed
    return None


def _arm_from_folder(folder: str, path: Sequence[str]) -> None:
    """Arms a recorder.  ``path`` is the module search path as it was before the script started."""
    with _failures_reported(), separate_imports(path):
        from pathlib import Path

        from distprof.config.settings import read_settings

        arm(read_settings(Path(folder)))


@contextlib.contextmanager
def _failures_reported() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        from distprof.external_exceptions import pass_on

        pass_on(error)
        say(f"this process is not recorded, the job goes on: {type(error).__name__}: {said(error)}")


def _start_daemon(folder: str, path: Sequence[str]) -> None:
    with contextlib.suppress(Exception), separate_imports(path):  # the job goes on without a daemon
        from distprof.inject.node_daemon import start_if_first

        start_if_first(folder, path)


def disarm() -> None:
    """The recorder of this process has finished."""
    global recorder  # noqa: PLW0603
    recorder = None


def is_launched_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher may have started this process as a rank: RANK is set, and was not inherited from a rank."""
    return is_launched_rank_by("RANK", environment)


def _is_rank_of_a_launcher() -> bool:
    return any(is_launched_rank_by(variable) for variable, _ in RANK_AND_SIZE)


def is_launched_rank_by(variable: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher that tells ranks by ``variable`` may have started this process.

    There may be a shell between launcher and rank.  If the environment of an ancestor cannot be read (other systems
    than Linux, other users), the answer is no.
    """
    if variable not in environment:
        return False
    from distprof.rank import procfs

    for pid in procfs.ancestors(os.getpid()):
        inherited = procfs.environment(pid)
        if inherited is None or inherited.get(variable) != environment[variable]:
            return inherited is not None
        if procfs.is_python(pid):
            return False
    return False


def _at_exit_of_a_rank(folder: str, pid: int) -> None:
    """Writes the shard of a rank that never called a model, unless this is a forked child."""
    if os.getpid() == pid and (recorder is None or recorder.rank.identity is None):
        with contextlib.suppress(Exception):  # the script ends as it would without distprof
            from pathlib import Path

            from distprof.config.settings import read_settings
            from distprof.inject import no_model

            no_model.write_no_model_shard(read_settings(Path(folder)))
