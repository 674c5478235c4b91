"""Runs ``python -m soak`` for tests: it and every Python that it starts are forks that have imported torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from support.forking.server import forking_python
from support.processes import output_of

TOOLS = Path(__file__).parents[3] / "tools"
_START = """
import runpy, sys
sys.executable, *sys.argv[1:] = sys.argv[1:]
runpy.run_module("soak", run_name="__main__", alter_sys=True)
"""


def run_soak(env: Mapping[str, str], *options: object, folder: Path | None = None) -> str:
    """``run_soak(clean_env, "--only", "kills", "--kills", 3)`` returns what it prints; it must end with 0.

    ``folder`` is that of its temporary files.
    """
    python = forking_python(env)
    own = {"TMPDIR": str(folder)} if folder else {}
    variables = {**env, **own, "PYTHON_EXEC": str(python)}  # the last one is read by torchrun
    return output_of("-c", _START, python, *options, cwd=TOOLS, env=variables, executable=python)
