"""From a new Python process to an armed recorder: waits for ``import torch``, costs nothing where it never comes.

Every Python that a job starts runs this first, so it loads next to nothing by itself: what were loaded here, a script
could not have under the same name any more.
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
from distprof.inject.import_hook import TorchImportHook, apart

if TYPE_CHECKING:
    from distprof.config.settings import Settings
    from distprof.recorder.recorder import Recorder

#: The recorder of this process, once there is one.
recorder: Recorder | None = None


def from_injection(folder: str) -> None:
    """Arm a recorder with the settings in ``folder``, now or when torch is imported."""
    if is_launched_rank():
        atexit.register(_at_exit_of_a_rank, folder, os.getpid())
    path = sys.path[:]
    if "torch" in sys.modules:
        _arm_as_told(folder, path)
    else:
        sys.meta_path.insert(0, TorchImportHook(lambda: _arm_as_told(folder, path)))


def arm(settings: Settings, *, asked: bool = False) -> Recorder | None:
    """The recorder of this process, waiting for a model to run; None, said once, when it cannot be started.

    ``asked``: the script itself wants this process recorded.
    """
    global recorder  # noqa: PLW0603  one process has one recorder
    with _said_where_it_fails():
        from distprof.recorder.recorder import Recorder

        armed = Recorder(settings, asked=asked)
        armed.arm()
        recorder = armed
        return armed
    return None


def _arm_as_told(folder: str, path: Sequence[str]) -> None:
    """``path`` is where modules were looked for before there was a script."""
    with _said_where_it_fails(), apart(path):
        from pathlib import Path

        from distprof.config.settings import read_settings

        arm(read_settings(Path(folder)))


@contextlib.contextmanager
def _said_where_it_fails() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        from distprof.external_exceptions import pass_on

        pass_on(error)
        say(f"this process is not recorded, the job goes on: {type(error).__name__}: {said(error)}")


def disarm() -> None:
    """The recorder of this process has finished."""
    global recorder  # noqa: PLW0603
    recorder = None


def is_launched_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process may be what a launcher started as a rank: RANK is set, and was not inherited from a rank.

    A shell may stand between launcher and rank.  Where an ancestor's environment cannot be read (other systems than
    Linux, other users) the answer is no.
    """
    if "RANK" not in environment:
        return False
    from distprof.rank import procfs

    for pid in procfs.ancestors(os.getpid()):
        inherited = procfs.environment(pid)
        if inherited is None or inherited.get("RANK") != environment["RANK"]:
            return inherited is not None
        if procfs.is_python(pid):
            return False
    return False


def _at_exit_of_a_rank(folder: str, pid: int) -> None:
    """A rank that never called a model says so, unless this is a child that it forked."""
    if os.getpid() == pid and not (recorder is not None and recorder.claimed):
        with contextlib.suppress(Exception):
            from pathlib import Path

            from distprof.config.settings import read_settings
            from distprof.inject import no_model

            no_model.write_no_model_shard(read_settings(Path(folder)))
