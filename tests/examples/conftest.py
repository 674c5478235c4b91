"""Makes the examples importable from their folder: they are scripts, not a package."""

from __future__ import annotations

import sys

from support.examples import EXAMPLES

sys.path.insert(0, str(EXAMPLES))
