"""The examples are scripts, not a package: tests import them from their folder, and run them as a user would."""

from __future__ import annotations

import sys

from support.examples import EXAMPLES

sys.path.insert(0, str(EXAMPLES))
