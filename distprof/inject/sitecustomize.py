"""Copied into a run's folder and put first on PYTHONPATH: the first thing that a new rank process runs.

It starts the recorder's watch and then whatever ``sitecustomize`` it stands in front of.  It never raises.
"""

from __future__ import annotations

import os
import sys


def _start_recorder(folder: str) -> None:
    try:
        from distprof.bootstrap import from_injection

        from_injection(folder)
    except ImportError:
        if "RANK" in os.environ:
            _say(f"rank {os.environ['RANK']} is not recorded: {sys.executable} has no distprof installed")
    except Exception as error:
        _say(f"this process is not recorded: {type(error).__name__}: {error}")


def _say(sentence: str) -> None:
    """On stderr, where there is one: print() would take stdout instead, which is the job's."""
    try:
        if sys.stderr is not None:
            print(f"distprof: {sentence if sentence.isprintable() else ascii(sentence)}", file=sys.stderr)
    except (OSError, ValueError):
        pass


def _run_the_next_one() -> None:
    """The sitecustomize that Python would have found without us."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_folder = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _folder]  # as it would be without us
_start_recorder(_folder)
_run_the_next_one()
