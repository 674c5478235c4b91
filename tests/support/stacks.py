"""The training stacks on which tests run for real, by the names under which pip knows them.

    @pytest.mark.stack("deepspeed", "transformers")
    def test_of_both() -> None:
        import deepspeed

Where one is not installed its tests are skipped; where DISTPROF_STACKS is ``required`` they fail, the optional ones
apart.  Importing stays with the test: collecting tests loads no stack.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import pytest

#: Each machine should have these (the extra ``stacks``) ...
STACKS = ("deepspeed", "transformers", "accelerate", "lightning")
#: ... and may have these (the extra ``optional-stacks``).
OPTIONAL = ("megatron-core",)


def require(stack: str) -> None:
    """Skip the test that is about to run, or fail it, where ``stack`` is not installed."""
    if stack not in STACKS + OPTIONAL:
        pytest.fail(f"{stack} is no training stack that `make test` installs: name one of {STACKS + OPTIONAL}")
    try:
        version(stack)
    except PackageNotFoundError:
        if stack in STACKS and os.environ.get("DISTPROF_STACKS") == "required":
            pytest.fail(f"{stack} is not installed, and DISTPROF_STACKS=required asks for it", pytrace=False)
        pytest.skip(f"{stack} is not installed: `make test` installs what it can, and says why not")
