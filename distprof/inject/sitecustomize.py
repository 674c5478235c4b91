"""The first code that a new rank runs: this file is first on PYTHONPATH, in a run's folder or in distprof's
installation.

It prepares the recorder, and then runs the ``sitecustomize`` that it hides.  It never raises.

Every Python process of a job runs it, also in other environments and of old versions, so it uses only what all versions
support.  A script may read the output of such a process, so this file prints nothing unless torch is imported.
"""

import os
import sys


def _start_recorder(folder):
    # type: (str) -> None
    try:
        from distprof.inject.bootstrap import from_injection

        from_injection(folder)
    except ImportError:
        if "RANK" in os.environ:
            who = "rank " + os.environ["RANK"] + " is not recorded: "
            _say_when_torch_is_imported(who + str(sys.executable) + " has no distprof installed")
    except Exception as error:
        _say_when_torch_is_imported("this process is not recorded: " + type(error).__name__ + ": " + str(error))


def _say_when_torch_is_imported(sentence):
    # type: (str) -> None
    class TorchFinder:
        """Is asked for each module that is imported, so for parts of torch while torch is being imported."""

        def find_spec(self, fullname, path=None, target=None):
            # type: (str, object, object) -> None
            if fullname.startswith("torch.") and "torch" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _say(sentence)

    if hasattr(sys, "implementation"):  # no Python 2
        sys.meta_path.insert(0, TorchFinder())


def _say(sentence):
    # type: (str) -> None
    """On stderr, where there is one: print() would take stdout instead, which is the job's."""
    try:
        if sys.stderr is not None:
            sys.stderr.write("distprof: " + (sentence if sentence.isprintable() else ascii(sentence)) + "\n")
    except (OSError, ValueError):
        pass


def _run_hidden_sitecustomize():
    # type: () -> None
    """Runs the sitecustomize that Python would find without this one."""
    try:
        from importlib.machinery import PathFinder
        from importlib.util import module_from_spec
    except ImportError:  # a Python older than 3.5
        del sys.modules["sitecustomize"]
        __import__("sitecustomize")
        return
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_here = os.path.dirname(os.path.abspath(__file__))
_prefix = os.path.join(_here, "of")  # followed by the folder with a run's settings, if it is not this one
_run_folders = [entry[len(_prefix) :] for entry in sys.path if entry.startswith(_prefix + os.sep)]
# The path as it would be without distprof.
sys.path[:] = [p for p in sys.path if os.path.abspath(p) != _here and not p.startswith(_prefix + os.sep)]
_start_recorder(_run_folders[0] if _run_folders else _here)
_run_hidden_sitecustomize()
