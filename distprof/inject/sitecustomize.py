"""Put first on PYTHONPATH, in a run's folder or where distprof is installed: the first thing that a new rank runs.

It starts the recorder's watch and then whatever ``sitecustomize`` it stands in front of.  It never raises.

Every Python that a job starts runs it, one of another environment, too, and of any age: so it is written in what they
all understand.  A script may read what such a process says: it says nothing where torch never comes.
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
            _say_when_torch_comes(who + str(sys.executable) + " has no distprof installed")
    except Exception as error:
        _say_when_torch_comes("this process is not recorded: " + type(error).__name__ + ": " + str(error))


def _say_when_torch_comes(sentence):
    # type: (str) -> None
    class Teller:
        """Asked for each module that is imported: for parts of torch when torch itself is being imported."""

        def find_spec(self, fullname, path=None, target=None):
            # type: (str, object, object) -> None
            if fullname.startswith("torch.") and "torch" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _say(sentence)

    if hasattr(sys, "implementation"):  # no Python 2
        sys.meta_path.insert(0, Teller())


def _say(sentence):
    # type: (str) -> None
    """On stderr, where there is one: print() would take stdout instead, which is the job's."""
    try:
        if sys.stderr is not None:
            sys.stderr.write("distprof: " + (sentence if sentence.isprintable() else ascii(sentence)) + "\n")
    except (OSError, ValueError):
        pass


def _run_the_next_one():
    # type: () -> None
    """The sitecustomize that Python would have found without us."""
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
_prefix = os.path.join(_here, "of")  # what follows is the folder with a run's settings, where it is not this one
_told = [entry[len(_prefix) :] for entry in sys.path if entry.startswith(_prefix + os.sep)]
# The path as it would be without us.
sys.path[:] = [p for p in sys.path if os.path.abspath(p) != _here and not p.startswith(_prefix + os.sep)]
_start_recorder(_told[0] if _told else _here)
_run_the_next_one()
