"""From a new Python process to an armed recorder: waits for ``import torch``, costs nothing where it never comes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from distprof.output import say
from distprof.settings import Settings, read_settings

if TYPE_CHECKING:
    from distprof.recorder import Recorder

#: The settings of the recorder that was armed in this process, if any.
armed: Settings | None = None


def from_injection(folder: Path) -> None:
    """Arm a recorder with the settings in ``folder``, now or when torch is imported."""
    settings = read_settings(folder)
    if "torch" in sys.modules:
        arm(settings)
    else:
        sys.meta_path.insert(0, _TorchWatch(settings))


def arm(settings: Settings) -> Recorder | None:
    """The recorder of this process, waiting for a model to run; None, said once, when it cannot be started."""
    global armed  # noqa: PLW0603  one process has one recorder
    try:
        from distprof.recorder import Recorder

        recorder = Recorder(settings)
        recorder.arm()
        armed = settings
        return recorder
    except Exception as error:
        say(f"this process is not recorded, the job goes on: {type(error).__name__}: {error}")
        return None


def disarm() -> None:
    """The recorder of this process has finished."""
    global armed  # noqa: PLW0603
    armed = None


class _TorchWatch(MetaPathFinder):
    """Lets ``import torch`` run as ever, and arms a recorder when it is through."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("torch")
        if spec is None or spec.loader is None:
            return None
        spec.loader = _ArmingLoader(spec.loader, self._settings)
        return spec


class _ArmingLoader(Loader):
    """torch's own loader, and then a recorder."""

    def __init__(self, loader: Loader, settings: Settings) -> None:
        self._loader = loader
        self._settings = settings

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Before it runs: what looks at torch's spec or loader sees torch's own, as if we had never been there.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        arm(self._settings)
