"""From a new Python process to an armed recorder: waits for ``import torch``, costs nothing where it never comes."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from distprof import processes
from distprof.say import say
from distprof.settings import Settings, read_settings

if TYPE_CHECKING:
    from distprof.recorder import Recorder

#: The recorder of this process, once there is one.
recorder: Recorder | None = None


def from_injection(folder: Path) -> None:
    """Arm a recorder with the settings in ``folder``, now or when torch is imported."""
    settings = read_settings(folder)
    if is_launched_rank():
        atexit.register(_at_exit_of_a_rank, settings, os.getpid())
    if "torch" in sys.modules:
        arm(settings)
    else:
        sys.meta_path.insert(0, _TorchWatch(settings))


def arm(settings: Settings, *, asked: bool = False) -> Recorder | None:
    """The recorder of this process, waiting for a model to run; None, said once, when it cannot be started.

    ``asked``: the script itself wants this process recorded.
    """
    global recorder  # noqa: PLW0603  one process has one recorder
    try:
        from distprof.recorder import Recorder

        armed = Recorder(settings, asked=asked)
        armed.arm()
        recorder = armed
        return armed
    except Exception as error:
        say(f"this process is not recorded, the job goes on: {type(error).__name__}: {error}")
        return None


def disarm() -> None:
    """The recorder of this process has finished."""
    global recorder  # noqa: PLW0603
    recorder = None


def is_launched_rank(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process may be what a launcher started as a rank: RANK is set, and was not inherited from a rank.

    A shell may stand between launcher and rank.  Where an ancestor's environment cannot be read (other systems than
    Linux, other users) the answer is no.
    """
    if "RANK" not in environment or multiprocessing.parent_process() is not None:
        return False
    for pid in processes.ancestors(os.getpid()):
        inherited = processes.environment(pid)
        if inherited is None or inherited.get("RANK") != environment["RANK"]:
            return inherited is not None
        if processes.is_python(pid):
            return False
    return False


def _at_exit_of_a_rank(settings: Settings, pid: int) -> None:
    """A rank that never called a model says so, unless this is a child that it forked."""
    if os.getpid() == pid and not (recorder is not None and recorder.claimed):
        with contextlib.suppress(Exception):
            from distprof import absence

            absence.tell(settings)


class _TorchWatch(MetaPathFinder):
    """Lets ``import torch`` run as ever, and arms a recorder when it is through.

    Stays until then: others ask whether there is a torch long before they import it, and an import may fail and be
    tried again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asking = threading.local()  # set while we ask the finders behind us

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch" or hasattr(self._asking, "now"):
            return None
        self._asking.now = True
        try:
            spec = find_spec("torch")
        finally:
            del self._asking.now
        if spec is not None and spec.loader is not None:
            spec.loader = _ArmingLoader(spec.loader, self)
        return spec

    def torch_is_through(self) -> None:
        """``import torch`` has succeeded."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            arm(self._settings)


class _ArmingLoader(Loader):
    """torch's own loader, and then a recorder."""

    def __init__(self, loader: Loader, watch: _TorchWatch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        """Whoever asks for torch's spec without importing it may ask its loader, too."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Before it runs: what looks at torch's spec or loader sees torch's own, as if we had never been there.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._watch.torch_is_through()
