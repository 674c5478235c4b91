"""The training stacks that tests use, by their names in pip.

    @pytest.mark.stack("deepspeed", "transformers")
    def test_of_both() -> None:
        import deepspeed

If one is not installed, its tests are skipped; if DISTPROF_STACKS is ``required`` they fail, except for optional
stacks. The test itself imports the stack, so that collecting tests loads none.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import pytest

#: Each machine should have these (the extra ``stacks``) ...
STACKS = ("deepspeed", "transformers", "accelerate", "lightning")
#: ... and may have these (the extra ``optional-stacks``).
OPTIONAL = ("megatron-core", "peft")


def require(stack: str) -> None:
    """Skips or fails the test that begins if ``stack`` is not installed."""
    if stack not in STACKS + OPTIONAL:
        pytest.fail(f"{stack} is no training stack that `make test` installs: name one of {STACKS + OPTIONAL}")
    try:
        version(stack)
    except PackageNotFoundError:
        if stack in STACKS and os.environ.get("DISTPROF_STACKS") == "required":
            pytest.fail(f"{stack} is not installed, and DISTPROF_STACKS=required asks for it", pytrace=False)
        pytest.skip(f"{stack} is not installed: `make test` installs what it can, and says why not")
