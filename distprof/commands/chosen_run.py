"""The run that a command reads: the one that the user named, else the newest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distprof.config.option import Layer
from distprof.config.option_sources import with_defaults
from distprof.config.options import OUT
from distprof.console import say
from distprof.errors import UsageError
from distprof.launcher.remote.url import is_url, local_folder
from distprof.run_folder import MANIFEST, SHARDS


def chosen_run(given: Path | None, asked: Layer) -> Path:
    """Returns the folder of the run.  The ``shards`` folder of a run means that run.

    Without a folder it is the newest run in the folder that ``asked`` has as ``out``, the one in which ``distprof run``
    makes runs; says which.  Raises UsageError if there is none.
    """
    if given is not None:
        return given.parent if given.name == SHARDS and (given.parent / MANIFEST).is_file() else given
    runs = _folder_of_runs(asked)
    manifests = list(runs.glob(f"*/{MANIFEST}"))
    if not manifests:
        raise UsageError(f"{runs} holds no run: give the folder that 'distprof run' named at its end")
    newest = max(manifests, key=lambda manifest: manifest.stat().st_mtime_ns).parent
    say(f"reads {newest}, the newest run")
    return newest


def chosen_runs(given: Sequence[str], asked: Layer, progress: Callable[[int, int], None]) -> list[Path]:
    """Returns the folders of a run: several where each node has its own.  A run at a URL is copied to where runs are
    made.

    Raises UsageError, and DataError for a URL whose run cannot be copied; without any folder as :func:`chosen_run`.
    """
    if not given:
        return [chosen_run(None, asked)]
    return [_copied(one, asked, progress) if is_url(one) else chosen_run(Path(one), asked) for one in given]


def _copied(url: str, asked: Layer, progress: Callable[[int, int], None]) -> Path:
    from distprof.launcher.remote.download import download  # imported here, because only a URL needs it

    folder = download(url, _folder_of_runs(asked), progress)
    say(f"the run is copied to {folder}")
    return folder


def _folder_of_runs(asked: Layer) -> Path:
    return local_folder(with_defaults((OUT,), asked)["out"], OUT.default)
