"""Colour for a terminal: titles, what to look at first, and what to beware of.  The words stay as they are."""

from __future__ import annotations

import re

_BOLD, _RED, _YELLOW = "1", "1;31", "33"
_PATTERNS = (
    (re.compile(r"^-{10,} .* -{10,}$", re.MULTILINE), _BOLD),
    (re.compile(r"^ *\* .*$", re.MULTILINE), _RED),
    (re.compile(r"^slowest: rank \d+, [^:]*:", re.MULTILINE), _RED),
    (re.compile(r"^slow together: ranks [^:]*:", re.MULTILINE), _RED),
    (re.compile(r"^note:", re.MULTILINE), _YELLOW),
    (re.compile(r"; missing: .*$", re.MULTILINE), _YELLOW),
)


def coloured(text: str) -> str:
    """The rendered report with ANSI colours."""
    for pattern, code in _PATTERNS:
        text = pattern.sub(f"\x1b[{code}m\\g<0>\x1b[0m", text)
    return text
